"""More load than the gateway takes: what is still answered, how fast, and how fast the rest is refused.

    python -m benchmarks.overload [--seconds 10]

A gateway of its own on the shop of the stack, which is started where it does not run. Load comes from two processes,
each call for another shopper. A closed load finds saturation: the lowest concurrency with 95% of the highest goodput.
Then open loads of 1, 1.5 and 3 times the goodput at saturation, which is measured again before and after each of them:
ratios are to the mean of the two, since a machine's speed changes meanwhile. Goodput is what is answered within the
deadline; what is neither that nor refused has failed. A refusal is timed by its caller and by the gateway's own clock
(from when it sees the call). Full health after a load: the first of ten calls in a row that take at most twice the p99
of calls before any. Figures are kept as JSON in benchmarks/results/.
"""

from __future__ import annotations

import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import mean

import grpc
import numpy as np
import psutil
import typer
from prometheus_client.parser import text_string_to_metric_families
from rich.table import Table

from benchmarks import record
from benchmarks.latency import BenchmarkError, endless_requests, ensure_up
from benchmarks.live_shop import gateway_on
from benchmarks.offered_load import OK, REFUSED, LoadError, Target, put_load
from braid.v1 import recommendation_pb2 as pb
from braid.v1 import recommendation_pb2_grpc
from deploy.embedded import stack
from features.settings import Settings, load_settings
from features.terminal import console
from tests.processes import free_ports

USERS = 4_000
CONCURRENCIES = (1, 8, 16, 32, 64)
TIMES = (1.0, 1.5, 3.0)
DEADLINE_S = 1.0
MIB = 1 << 20
ENOUGH = 0.95
CALLS_IN_A_ROW = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one load. Rates are calls/s; `health_s` is -1 where it was not looked at."""

    offered: float
    goodput: float
    p50_ms: float
    p99_ms: float
    refused: float
    failed: float
    refusal_p99_ms: float
    refused_within_5_ms_by_the_gateway: float
    gateway_bytes: int
    limit: float
    health_s: float
    codes: dict[str, int]
    tiers: dict[str, int]


class Loaded:
    """The gateway under load."""

    def __init__(self, settings: Settings, pid: int, metrics: str, users: list[str]) -> None:
        self.settings = settings
        self._process = psutil.Process(pid)
        self._metrics = metrics
        self._users = users
        self._healthy_s = 0.0

    def load(self, seconds: float, *, rate: float = 0.0, concurrency: int = 0) -> Outcome:
        """Puts a load on it."""
        *before, _ = self._counts()
        with self._watched_memory() as most_bytes:
            target = Target.recommend(self.settings.gateway_address, self._users)
            calls = put_load(target, seconds=seconds, timeout_s=DEADLINE_S, rate=rate, concurrency=concurrency)
        *after, limit = self._counts()
        health_s = self.seconds_to_health() if rate else -1.0
        answered = [call.seconds for call in calls if call.code == OK and call.seconds <= DEADLINE_S]
        refused = [call.seconds for call in calls if call.code == REFUSED]
        seen, soon = (now - then for now, then in zip(after, before, strict=True))
        return Outcome(
            offered=len(calls) / seconds,
            goodput=len(answered) / seconds,
            p50_ms=_percentile_ms(answered, 50),
            p99_ms=_percentile_ms(answered, 99),
            refused=len(refused) / seconds,
            failed=(len(calls) - len(answered) - len(refused)) / seconds,
            refusal_p99_ms=_percentile_ms(refused, 99),
            refused_within_5_ms_by_the_gateway=soon / seen if seen else 1.0,
            gateway_bytes=most_bytes[0],
            limit=limit,
            health_s=health_s,
            codes=dict(Counter(call.code for call in calls)),
            tiers=dict(Counter(call.tier for call in calls if call.tier)),
        )

    def learn_health(self) -> None:
        """How long a call takes that is alone."""
        with grpc.insecure_channel(self.settings.gateway_address) as channel:
            stub = recommendation_pb2_grpc.RecommendationServiceStub(channel)
            self._healthy_s = 2 * float(np.percentile([self._ask(stub) for _ in range(200)], 99))

    def seconds_to_health(self) -> float:
        """From now to the first of the calls in a row that are answered as one that is alone."""
        begin_s = since_s = time.perf_counter()
        good = 0
        with grpc.insecure_channel(self.settings.gateway_address) as channel:
            stub = recommendation_pb2_grpc.RecommendationServiceStub(channel)
            while good < CALLS_IN_A_ROW and time.perf_counter() - begin_s < 30:
                asked_s = time.perf_counter()
                try:
                    good = good + 1 if self._ask(stub) <= self._healthy_s else 0
                except grpc.RpcError:
                    good = 0
                if good <= 1:
                    since_s = asked_s
        return since_s - begin_s

    def _ask(self, stub: recommendation_pb2_grpc.RecommendationServiceStub) -> float:
        started_s = time.perf_counter()
        stub.Recommend(pb.RecommendRequest(user_id=self._users[0], page_size=10), timeout=DEADLINE_S)
        return time.perf_counter() - started_s

    def _counts(self) -> tuple[float, float, float]:
        """Refusals so far, those of them that took at most 5 ms, and the limit now."""
        with urllib.request.urlopen(f"http://{self._metrics}/metrics") as answer:
            text = answer.read().decode()
        found = {
            sample.labels.get("le", ""): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name in ("braid_refusal_seconds_bucket", "braid_admission_limit")
        }
        return found["+Inf"], found["0.005"], found[""]

    @contextmanager
    def _watched_memory(self) -> Iterator[list[int]]:
        most, end = [0], threading.Event()

        def watch() -> None:
            while not end.wait(0.2):
                most[0] = max(most[0], self._process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield most
        finally:
            end.set()
            watcher.join()


def main(seconds: float = typer.Option(10.0, min=1.0, help="Length of each load.")) -> None:
    """Saturation, then more than that."""
    settings = load_settings()
    try:
        ensure_up(settings)
        requests = endless_requests(settings)
        users = [next(requests).user_id for _ in range(USERS)]
        with _gateway(settings, users) as target:
            target.load(seconds, concurrency=CONCURRENCIES[-1])  # warm
            target.learn_health()
            closed = {concurrency: target.load(seconds, concurrency=concurrency) for concurrency in CONCURRENCIES}
            peak = max(outcome.goodput for outcome in closed.values())
            saturation = min(number for number, outcome in closed.items() if outcome.goodput >= ENOUGH * peak)
            beside = [target.load(seconds, concurrency=saturation)]
            opened = {}
            for times in TIMES:
                opened[times] = target.load(seconds, rate=times * beside[-1].goodput)
                beside.append(target.load(seconds, concurrency=saturation))
    except (BenchmarkError, LoadError, stack.StackError) as error:
        sys.exit(str(error))
    show(closed, opened, beside, saturation)
    figures = {
        "saturation_concurrency": saturation,
        "closed": {str(number): asdict(outcome) for number, outcome in closed.items()},
        "open": {str(times): asdict(outcome) for times, outcome in opened.items()},
        "saturation_before_and_after_each": [asdict(outcome) for outcome in beside],
    }
    console.print(str(record.write("overload", figures)))


def show(closed: dict[int, Outcome], opened: dict[float, Outcome], beside: list[Outcome], saturation: int) -> None:
    """The table, goodput and p99 also as ratios: of open loads, to the mean of the two loads `beside`."""
    table = Table(
        "load", "offered/s", "goodput/s", "of saturation's", "p50 ms", "p99 ms", "of saturation's",
        "refused/s", "failed/s", "refusal p99 ms", "within 5 ms", "limit", "memory MiB", "health s",
    )  # fmt: skip
    rows = [(f"{number} under way", it, [closed[saturation]]) for number, it in closed.items()]
    for number, (times, it) in enumerate(opened.items()):
        rows.append((f"{times:g} x saturation", it, beside[number : number + 2]))
    for name, it, base in rows:
        table.add_row(
            name,
            f"{it.offered:.0f}",
            f"{it.goodput:.0f}",
            f"{it.goodput / mean(at.goodput for at in base):.2f}",
            f"{it.p50_ms:.1f}",
            f"{it.p99_ms:.1f}",
            f"{it.p99_ms / mean(at.p99_ms for at in base):.2f}",
            f"{it.refused:.0f}",
            f"{it.failed:.0f}",
            f"{it.refusal_p99_ms:.1f}",
            f"{it.refused_within_5_ms_by_the_gateway:.2%}",
            f"{it.limit:.0f}",
            f"{it.gateway_bytes / MIB:.0f}",
            "" if it.health_s < 0 else f"{it.health_s:.2f}",
        )
    console.print(table)
    rates = ", ".join(f"{it.goodput:.0f}" for it in beside)
    console.print(f"Saturation is reached with {saturation} calls under way; beside the open loads: {rates} answers/s.")


@contextmanager
def _gateway(settings: Settings, users: list[str]) -> Iterator[Loaded]:
    """One on ports of its own."""
    port = free_ports(2)
    settings = settings.model_copy(update={"gateway_address": f"127.0.0.1:{port}"})
    metrics = f"127.0.0.1:{port + 1}"
    with gateway_on(settings, log="overload", metrics_address=metrics) as process:
        yield Loaded(settings, process.pid, metrics, users)


def _percentile_ms(seconds: list[float], percent: float) -> float:
    return float(np.percentile(seconds, percent)) * 1000 if seconds else 0.0


if __name__ == "__main__":
    typer.run(main)
