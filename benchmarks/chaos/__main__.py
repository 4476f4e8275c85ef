"""A fault every few seconds, under load: what is answered, how soon all is well again, and what leaks.

    python -m benchmarks.chaos [--minutes 10]

A shop of its own on PostgreSQL and Redis with Triton, a stream worker and two gateways on one address. A storefront,
which retries a broken connection as gRPC's clients do, asks and writes events at a steady rate. Parts are killed, held
for two seconds, delayed, cut off, and get no room on the disk; all faults in a random order, then again, each once both
gateways serve and all answers are in full. What ends is started again at once, as its supervisor would. Exits with 1
where fewer than 99.9% of the calls of Recommend were answered in time, anything was INTERNAL, an event that was
acknowledged is not in the log, the full tier did not come back, or a gateway, in whichever of its lives, or /dev/shm
has grown. The figures are kept as JSON in benchmarks/results/, beside them the logs where the full tier stayed away.
"""

from __future__ import annotations

import random
import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.table import Table

from benchmarks import record
from benchmarks.acknowledged import logged_ids
from benchmarks.chaos.faults import faults
from benchmarks.chaos.shop import Shop, suffering_shop
from benchmarks.chaos.storefront import Storefront
from features.database.engine import open_database
from features.log.event_log import EventLog
from features.terminal import console
from tests.conditions import eventually

BACK_S = 60.0
"""Longest wait for the full tier after a fault; on an idle machine it takes five seconds at most."""
QUIET_S = 1.0
"""All answers have been in full for so long: the next fault."""
MOST_MORE_BYTES = 64 << 20
MOST_MORE_DESCRIPTORS = 40


@dataclass(slots=True, kw_only=True)
class Outcome:
    """back_s: by fault, the longest time from its end to full answers again. grown: what has, and by how much. lost: of
    the events that were acknowledged."""

    codes: dict[str, int]
    event_codes: dict[str, int]
    tiers: dict[str, int]
    back_s: dict[str, float]
    grown: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    lost: int = 0

    @property
    def availability(self) -> float:
        """Share of the calls of Recommend that were answered in time."""
        return self.codes.get("OK", 0) / max(1, sum(self.codes.values()))

    def failures(self, least: float) -> list[str]:
        """What must not be, the availability below `least` among it."""
        found = []
        if self.availability < least:
            found.append(f"availability {self.availability:.3%}")
        if "INTERNAL" in {**self.codes, **self.event_codes}:
            found.append("INTERNAL")
        if self.lost:
            found.append(f"{self.lost:,} of {self.acknowledged:,} acknowledged events are lost")
        return found + [f"{name} has grown by {more:,}" for name, more in self.grown.items()]


@dataclass(frozen=True, slots=True)
class Held:
    """What a gateway process holds."""

    pid: int
    descriptors: int
    bytes: int

    @staticmethod
    def by(pid: int) -> Held:
        """Now."""
        process = psutil.Process(pid)
        return Held(pid, process.num_fds(), process.memory_info().rss)


class Leaks:
    """What each gateway process held when it was first looked at, and what it holds now.

    A gateway that is killed is another process from then on; the one before is compared as it was seen last.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[str, Held, Held]] = {}

    def look(self, shop: Shop) -> None:
        """At the gateways that run."""
        for name, part in shop.parts.items():
            if part in shop.gateways:
                self.note(name, Held.by(part.process.pid))

    def note(self, name: str, now: Held) -> None:
        """What a gateway holds."""
        _, first, _ = self._seen.get(now.pid, (name, now, now))
        self._seen[now.pid] = name, first, now

    def grown(self) -> dict[str, int]:
        """By how much the processes have grown that have grown beyond what they may, the most of each gateway."""
        found: dict[str, int] = {}
        for name, then, now in self._seen.values():
            for what, more, most in (
                ("descriptors", now.descriptors - then.descriptors, MOST_MORE_DESCRIPTORS),
                ("memory", now.bytes - then.bytes, MOST_MORE_BYTES),
            ):
                if more > most:
                    found[f"{name}'s {what}"] = max(more, found.get(f"{name}'s {what}", 0))
        return found


def main(
    minutes: Annotated[float, typer.Option(min=0.1)] = 10.0,
    rate: Annotated[float, typer.Option(min=1, help="Calls of Recommend in a second.")] = 40.0,
    least: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the calls that must be answered in time.")
    ] = 0.999,
    seed: Annotated[int, typer.Option(help="Of the order of the faults.")] = 0,
) -> None:
    """Faults, then counts."""
    with suffering_shop() as shop:
        try:
            outcome = suffer(shop, minutes * 60, rate, random.Random(seed))
        except AssertionError as error:
            sys.exit(f"{error}; logs: {keep_logs(shop)}")
    table = Table("fault", "s until full answers again")
    for name, seconds in outcome.back_s.items():
        table.add_row(name, f"{seconds:.1f}")
    console.print(table)
    console.print(f"Recommend: {outcome.codes}, {outcome.availability:.3%} answered in time; {outcome.tiers}")
    console.print(
        f"WriteEvents: {outcome.event_codes}; {outcome.acknowledged} acknowledged, {outcome.lost} of them lost"
    )
    failures = outcome.failures(least)
    for failure in failures:
        console.print(failure, style="red")
    console.print(str(record.write("chaos", asdict(outcome) | {"availability": outcome.availability})))
    sys.exit(bool(failures))


def suffer(shop: Shop, seconds: float, rate: float, draw: random.Random) -> Outcome:
    """Faults one after the other for so long."""
    back_s: dict[str, float] = {}
    coming = faults()
    with Storefront(shop.settings.gateway_address, rate) as storefront:
        wait_until_full(shop, storefront, time.monotonic(), after="the start")
        leaks = Leaks()
        leaks.look(shop)
        regions = shop.shared_memory()
        end_s = time.monotonic() + seconds
        with console.status("") as status:
            while time.monotonic() < end_s:
                draw.shuffle(coming)
                for fault in coming:
                    left_s = end_s - time.monotonic()
                    if left_s <= 0:
                        break
                    status.update(f"{fault.name}, {left_s:.0f} s to go")
                    with contextmanager(fault.hold)(shop):
                        time.sleep(fault.lasts_s)
                    took_s = wait_until_full(shop, storefront, time.monotonic(), after=fault.name)
                    back_s[fault.name] = max(took_s, back_s.get(fault.name, 0.0))
                    leaks.look(shop)
    grown = leaks.grown()
    if (more := shop.shared_memory() - regions) > 0:
        grown["/dev/shm"] = more
    return Outcome(
        codes=dict(storefront.codes),
        event_codes=dict(storefront.event_codes),
        tiers={name: count for name, count in storefront.tiers.items() if name},
        back_s=back_s,
        grown=grown,
        acknowledged=len(storefront.acknowledged),
        lost=len(lost(shop, storefront.acknowledged)),
    )


def lost(shop: Shop, acknowledged: set[str]) -> set[str]:
    """Those of the events that are not in the log."""
    engine = open_database(shop.settings.log_url)
    try:
        return acknowledged.difference(logged_ids(EventLog(engine)))
    finally:
        engine.dispose()


def wait_until_full(shop: Shop, storefront: Storefront, since_s: float, *, after: str) -> float:
    """Seconds from `since_s` to the first of the answers that are all in full.

    Raises:
        AssertionError: they stayed away; the message names what they stayed away after.
    """

    def full() -> bool:
        shop.revive()
        return shop.both_serve() and time.monotonic() - max(storefront.full_since_s, since_s) >= QUIET_S

    eventually(full, within_s=BACK_S, every_s=0.05, what=f"full answers after {after}")
    return max(0.0, storefront.full_since_s - since_s)


def keep_logs(shop: Shop) -> Path:
    """Copies the logs of all parts before the shop is gone, and returns the folder."""
    kept = record.RESULTS / "chaos-logs"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for folder in (shop.settings.home.parent, shop.settings.logs):
        for log in folder.glob("*.log"):
            shutil.copy(log, kept)
    return kept


if __name__ == "__main__":
    typer.run(main)
