"""How long the features of a log of made-up events take: all of them, and those of who did something since.

    python -m benchmarks.feature_build [--events 1000000]

For each profile (SQLite; PostgreSQL and Redis): `python -m features build`, then the long-term vectors of a release for
every shopper, and once more after one in a hundred events is new, in visits of ten: both by a process that stays, as
`python -m features materialize --every` does, and the second also by one that starts for it. The release has random
weights. Shoppers have twenty events each on average, one in twenty a purchase. Prints seconds and keeps them in
benchmarks/results/.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass

import typer
from rich.progress import track
from rich.table import Table
from sqlalchemy import Engine, delete

from benchmarks import record
from benchmarks.live_shop import PROFILES, live_shop
from benchmarks.random_release import made_up_items, random_model
from features.database.engine import open_database
from features.database.models import Counter
from features.log.event_log import EventLog, NewEvent
from features.online.interest_encoder import Encoders
from features.online.materialize import materialize, materialized_counter
from features.settings import ROOT, Settings
from features.shop.catalogue import Catalogue
from features.terminal import console
from tests.processes import environment
from training.publish import publish

EVENTS_A_SHOPPER = 20
ITEMS = 20_000
NEW_SHARE = 0.01
EVENTS_A_VISIT = 10
BATCH = 10_000
TARGET_BUILD_S = 60.0
TARGET_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Of a build of all features, of all long-term vectors, and of those of shoppers with new events, by a process
    that stays and by one that starts for it."""

    build: float
    materialize_all: float
    materialize_new: float
    materialize_new_alone: float


def main(events: int = typer.Option(1_000_000, min=1_000, help="Events in the log.")) -> None:
    """Seconds of full and incremental runs for both profiles."""
    measured = {}
    for profile in PROFILES:
        with live_shop(profile) as shop:
            measured[profile] = measure(shop.settings, events)
    table = Table(
        f"{events:,} events", "build s", "vectors of all s", "after 1% new events s", "share", "started anew s"
    )
    for name, it in measured.items():
        seconds = (it.build, it.materialize_all, it.materialize_new)
        share = it.materialize_new / it.materialize_all
        table.add_row(name, *(f"{s:.1f}" for s in seconds), f"{share:.3f}", f"{it.materialize_new_alone:.1f}")
    console.print(table)
    console.print(f"Targets: a build in {TARGET_BUILD_S:g} s, a share of {TARGET_SHARE:g}.")
    figures = {name: asdict(it) for name, it in measured.items()}
    console.print(str(record.write("feature_build", {"events": events, "seconds": figures})))


def measure(settings: Settings, events: int) -> Seconds:
    """Fills a shop and works through it."""
    draw = random.Random(0)
    fill(settings, events, draw)
    build_s = run(settings, "build")
    unlearned = random_model(list(made_up_items(ITEMS)))
    release = publish(settings, unlearned, why="a measurement", note=console.print, although_worse="random weights")
    engine = open_database(settings.log_url)
    log, new = EventLog(engine), round(events * NEW_SHARE)
    with closing(Encoders()) as encoders:
        seconds = [
            materialized(settings, engine, release, encoders, whole=True) for _ in range(2)
        ]  # the first starts it
        append_visits(log, new, events, draw)
        new_s = materialized(settings, engine, release, encoders)
    append_visits(log, new, events + new, draw)
    engine.dispose()
    alone_s = run(settings, "materialize")
    return Seconds(build=build_s, materialize_all=seconds[-1], materialize_new=new_s, materialize_new_alone=alone_s)


def materialized(settings: Settings, engine: Engine, release: int, encoders: Encoders, *, whole: bool = False) -> float:
    """Seconds of a run in this process."""
    if whole:
        with engine.begin() as connection:
            connection.execute(delete(Counter).where(Counter.name == materialized_counter(release)))
    began_s = time.monotonic()
    materialize(settings, release, encoders=encoders)
    return time.monotonic() - began_s


def run(settings: Settings, command: str) -> float:
    """Seconds of `python -m features <command>`."""
    began_s = time.monotonic()
    subprocess.run([sys.executable, "-m", "features", command], check=True, cwd=ROOT, env=environment(settings))
    return time.monotonic() - began_s


def fill(settings: Settings, events: int, draw: random.Random) -> None:
    """Writes catalogue and log."""
    now_ms = time.time_ns() // 1_000_000
    engine = open_database(settings.log_url)
    Catalogue(engine).upsert(list(made_up_items(ITEMS)))
    log = EventLog(engine)
    for start in track(range(0, events, BATCH), "writing the log", console=console):
        batch = [
            _event(draw, number, _shopper(draw, events), now_ms - (events - number) * 1_000)
            for number in range(start, min(start + BATCH, events))
        ]
        log.append(batch, batch[-1].event_time_ms)
    engine.dispose()


def append_visits(log: EventLog, new: int, events: int, draw: random.Random) -> None:
    """Adds `new` events of now, ten of one shopper after the other."""
    now_ms = time.time_ns() // 1_000_000
    batch: list[NewEvent] = []
    for number in range(events, events + new):
        if number % EVENTS_A_VISIT == 0 or not batch:
            shopper = _shopper(draw, events)
        batch.append(_event(draw, number, shopper, now_ms))
    log.append(batch, now_ms)


def _shopper(draw: random.Random, events: int) -> str:
    return f"user-{draw.randrange(max(1, events // EVENTS_A_SHOPPER))}"


def _event(draw: random.Random, number: int, user_id: str, time_ms: int) -> NewEvent:
    return NewEvent(
        event_id=f"event-{number}",
        event_type=4 if draw.random() < 0.05 else 1,
        event_time_ms=time_ms,
        user_id=user_id,
        session_id=None,
        item_id=f"item-{draw.randrange(ITEMS)}",
    )


if __name__ == "__main__":
    typer.run(main)
