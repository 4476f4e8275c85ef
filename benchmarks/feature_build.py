"""How long features take: a full rebuild, all long-term vectors, and those of whoever did something since.

    python -m benchmarks.feature_build [--events 1000000]

For each profile (SQLite; PostgreSQL and Redis) `python -m features build` on a log of made-up events. Shoppers have
twenty each on average, one in twenty a purchase. Then a release is trained (briefly: its quality is no matter) and
`python -m features materialize` encodes everybody, and once more after one percent new events, in visits of ten.
Prints seconds and keeps them in benchmarks/results/.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import delete, update

from benchmarks import record
from benchmarks.live_shop import PROFILES, live_shop
from features.database.engine import open_database
from features.database.models import Counter, Event
from features.event_log import EventLog, NewEvent
from features.materialize import materialized_counter
from features.settings import ROOT, Settings
from tests.processes import environment

EVENTS_A_SHOPPER = 20
VISIT_EVENTS = 10
ITEMS = 20_000
BATCH = 10_000

console = Console(highlight=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Of the three jobs."""

    build: float
    materialize_all: float
    materialize_new: float


def main(events: int = typer.Option(1_000_000, min=1_000, help="Events in the log.")) -> None:
    """Seconds for both profiles."""
    measured = {}
    for profile in PROFILES:
        with live_shop(profile) as shop:
            measured[profile] = measure(shop.settings, events)
    table = Table("profile", "events", "build s", "all vectors s", "after 1% new events s", "share")
    for name, it in measured.items():
        seconds = (it.build, it.materialize_all, it.materialize_new)
        share = it.materialize_new / it.materialize_all
        table.add_row(name, f"{events:,}", *(f"{taken:.1f}" for taken in seconds), f"{share:.0%}")
    console.print(table)
    figures = {name: asdict(it) for name, it in measured.items()}
    console.print(str(record.write("feature_build", {"events": events, "profiles": figures})))


def measure(settings: Settings, events: int) -> Seconds:
    """Fills the log, and runs the jobs as a person would."""
    now_ms = time.time_ns() // 1_000_000
    fill(settings, made_up(events, now_ms))
    build_s = run(settings, "features", "build")
    run(settings, "training", "train", "--epochs", "1", "--max-minutes", "1")
    run(settings, "training", "publish", "--why", "a measurement")
    engine = open_database(settings.log_url)
    with engine.begin() as connection:  # as if nobody had been encoded
        connection.execute(delete(Counter).where(Counter.name == materialized_counter(1)))
    engine.dispose()
    all_s = run(settings, "features", "materialize")
    fill(settings, visits(events // 100, events // EVENTS_A_SHOPPER, now_ms))
    return Seconds(build=build_s, materialize_all=all_s, materialize_new=run(settings, "features", "materialize"))


def run(settings: Settings, *module: str) -> float:
    """Seconds of `python -m …`."""
    began_s = time.monotonic()
    subprocess.run([sys.executable, "-m", *module], check=True, cwd=ROOT, env=environment(settings))
    return time.monotonic() - began_s


def fill(settings: Settings, events: Iterator[NewEvent]) -> None:
    """Writes events."""
    engine = open_database(settings.log_url)
    log, batch = EventLog(engine), list[NewEvent]()
    for event in events:
        batch.append(event)
        if len(batch) == BATCH:
            log.append(batch, time.time_ns() // 1_000_000)
            batch = []
    log.append(batch, time.time_ns() // 1_000_000)
    with engine.begin() as connection:  # each arrived when it happened
        connection.execute(update(Event).values(arrival_time_ms=Event.event_time_ms))
    engine.dispose()


def made_up(events: int, now_ms: int) -> Iterator[NewEvent]:
    """A second apart, up to now."""
    draw = random.Random(0)
    for number in range(events):
        user = draw.randrange(max(1, events // EVENTS_A_SHOPPER))
        yield _event(draw, f"event-{number}", user, now_ms - (events - number) * 1_000)


def visits(events: int, shoppers: int, now_ms: int) -> Iterator[NewEvent]:
    """Visits of shoppers who are drawn, each `VISIT_EVENTS` long."""
    draw, user = random.Random(1), 0
    for number in range(events):
        user = user if number % VISIT_EVENTS else draw.randrange(shoppers)
        yield _event(draw, f"new-{number}", user, now_ms)


def _event(draw: random.Random, event_id: str, user: int, time_ms: int) -> NewEvent:
    return NewEvent(
        event_id=event_id,
        event_type=4 if draw.random() < 0.05 else 1,
        event_time_ms=time_ms,
        user_id=f"user-{user}",
        session_id=None,
        item_id=f"item-{draw.randrange(ITEMS)}",
    )


if __name__ == "__main__":
    typer.run(main)
