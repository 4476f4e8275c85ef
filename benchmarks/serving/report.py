"""What a run of the serving bench found, and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.offered_load import OK, REFUSED, Call
from benchmarks.serving.stages import OUTSIDE
from benchmarks.serving.targets import BARE_GATEWAY, EMPTY, FEAST, GATEWAY, TRITON
from benchmarks.table import Table

PERCENTS = (50.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What became of one load. Rates are answers/s; CPU is milliseconds for each answer.

    rate: calls/s offered, 0 for a closed load. refused, failed: shares of the calls. gateway_cpu_ms: or the peer's.
    percentiles_ms: of the answers, at `PERCENTS`.
    """

    name: str
    rate: float
    concurrency: int
    goodput: float
    refused: float
    failed: float
    percentiles_ms: tuple[float, ...]
    gateway_cpu_ms: float
    triton_cpu_ms: float

    @staticmethod
    def of(
        name: str, calls: Sequence[Call], seconds: float, *, rate: float, concurrency: int, cpu_s: Sequence[float]
    ) -> Load:
        """From the calls of `seconds`, and the CPU seconds of gateway and Triton meanwhile."""
        answered = np.array([call.seconds for call in calls if call.code == OK])
        refused = sum(call.code == REFUSED for call in calls)
        count = max(1, len(calls))
        gateway_s, triton_s = cpu_s
        return Load(
            name=name,
            rate=rate,
            concurrency=concurrency,
            goodput=answered.size / seconds,
            refused=refused / count,
            failed=(len(calls) - answered.size - refused) / count,
            percentiles_ms=tuple(float(it) for it in np.percentile(answered * 1000, PERCENTS)) if answered.size else (),
            gateway_cpu_ms=1000 * gateway_s / max(1, answered.size),
            triton_cpu_ms=1000 * triton_s / max(1, answered.size),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BesidePeer:
    """A peer and the gateway by turns; without loads it was not measured, for the reason in `error`."""

    peer: str
    loads: list[Load] = field(default_factory=list)
    error: str = ""

    def best(self, name: str) -> Load:
        """The load at saturation: with the most answers/s."""
        return max((load for load in self.loads if load.name == name), key=lambda load: load.goodput)

    @property
    def ratio(self) -> float:
        """The gateway's throughput at saturation, of the peer's."""
        return self.best(GATEWAY).goodput / max(self.best(self.peer).goodput, 1e-9)

    def row(self) -> tuple[str, ...]:
        """In the table of peers."""
        if self.error:
            return (self.peer, f"not measured: {self.error}", *[""] * 4)
        peer, gateway = self.best(self.peer), self.best(GATEWAY)
        return (
            self.peer,
            f"{peer.goodput:.0f}",
            f"{gateway.goodput:.0f}",
            f"{self.ratio:.2f}",
            f"{peer.gateway_cpu_ms:.2f}",
            f"{gateway.gateway_cpu_ms + gateway.triton_cpu_ms:.2f}",
        )


@dataclass(slots=True, kw_only=True)
class Report:
    """A run. `alone`: milliseconds at concurrency 1, in turns; `stages`: microseconds of wall time and of CPU."""

    request_bytes: int
    response_bytes: int
    alone: dict[str, dict[str, float]]
    closed: list[Load] = field(default_factory=list)
    open: list[Load] = field(default_factory=list)
    stages: dict[str, tuple[float, float]] = field(default_factory=dict)
    peers: list[BesidePeer] = field(default_factory=list)

    def throughput(self, name: str) -> float:
        """Answers/s at saturation: the most at any concurrency."""
        return max(load.goodput for load in self.closed if load.name == name)

    def tables(self) -> list[Table]:
        """Everything."""
        own = _loads("Under load", [*sorted(self.closed, key=lambda load: load.name), *self.open])
        tables = [self._ratios(), self._alone(), own, self._stages()]
        if self.peers:
            loads = [load for it in self.peers for load in sorted(it.loads, key=lambda load: load.name)]
            tables += [self._peers(), _loads("Beside peers, by turns", loads)]
        return tables

    def _ratios(self) -> Table:
        medians = {name: it["p50"] for name, it in self.alone.items()}
        parts = sum(medians[name] for name in (EMPTY, TRITON, FEAST))
        at = {(load.name, load.concurrency): load for load in self.closed}
        rows = [("median alone, of empty method + bare Triton + bare Feast", f"{medians[GATEWAY] / parts:.2f}")]
        for concurrency in sorted({load.concurrency for load in self.closed}):
            gateway, empty = at[GATEWAY, concurrency], at[EMPTY, concurrency]
            name = f"throughput at concurrency {concurrency}, of the empty method's"
            rows.append((name, f"{gateway.goodput / empty.goodput:.2f}"))
        rows += [
            ("answers/s at saturation", f"{self.throughput(GATEWAY):.0f}"),
            ("answers/s at saturation, without features", f"{self.throughput(BARE_GATEWAY):.0f}"),
        ]
        if measured := [it for it in self.peers if it.loads]:
            best = max(measured, key=lambda it: it.best(it.peer).goodput)
            rows.append((f"answers/s at saturation, of the best peer's ({best.peer})", f"{best.ratio:.2f}"))
        return Table(title="Gateway", columns=("figure", "measured"), rows=tuple(rows))

    def _alone(self) -> Table:
        rows = tuple(
            (name, *(f"{it[percent]:.2f}" for percent in ("p50", "p95", "p99")),
             f"{it['p50'] / self.alone[EMPTY]['p50']:.1f}")
            for name, it in self.alone.items()
        )  # fmt: skip
        columns = ("milliseconds, concurrency 1, in turns", "p50", "p95", "p99", f"p50 / {EMPTY}")
        return Table(title="Alone", columns=columns, rows=rows)

    def _peers(self) -> Table:
        columns = (
            "at saturation",
            "answers/s",
            "gateway's beside it",
            "gateway / peer",
            "CPU ms an answer",
            "gateway's, with Triton",
        )
        return Table(title="Peers", columns=columns, rows=tuple(it.row() for it in self.peers))

    def _stages(self) -> Table:
        rows = [(stage, f"{wall:.0f}", f"{cpu:.0f}") for stage, (wall, cpu) in self.stages.items() if stage != OUTSIDE]
        total = [sum(it[place] for stage, it in self.stages.items() if stage != OUTSIDE) for place in (0, 1)]
        outside = f"{self.stages[OUTSIDE][1]:.0f}" if self.stages else ""
        rows += [("all of them", f"{total[0]:.0f}", f"{total[1]:.0f}"), ("gRPC, recording and the rest", "", outside)]
        columns = ("stage of a call that is alone", "wall us", "CPU us")
        return Table(title="Stages", columns=columns, rows=tuple(rows))


def _loads(title: str, loads: Sequence[Load]) -> Table:
    names = ("answers/s", "p50 ms", "p95 ms", "p99 ms", "p99.9 ms", "refused", "failed")
    rows = tuple(
        (
            load.name,
            f"{load.concurrency} under way" if load.concurrency else f"{load.rate:.0f}/s, open",
            f"{load.goodput:.0f}",
            *([f"{it:.1f}" for it in load.percentiles_ms] or [""] * len(PERCENTS)),
            f"{load.refused:.1%}",
            f"{load.failed:.1%}",
            f"{load.gateway_cpu_ms:.2f}",
            f"{load.triton_cpu_ms:.2f}",
        )
        for load in loads
    )
    columns = ("called", "load", *names, "gateway or peer CPU ms", "Triton CPU ms")
    return Table(title=title, columns=columns, rows=rows)
