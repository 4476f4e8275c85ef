"""How long a full rebuild of the features takes: `python -m features build` on a log of made-up events.

    python -m benchmarks.feature_build [--events 1000000]

For each profile (SQLite; PostgreSQL and Redis). Shoppers have twenty events each on average, one in twenty a purchase.
Prints seconds and keeps them in benchmarks/results/.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import record
from benchmarks.live_shop import PROFILES, live_shop
from features.database.engine import open_database
from features.event_log import EventLog, NewEvent
from features.settings import ROOT, Settings
from tests.processes import environment

EVENTS_A_SHOPPER = 20
ITEMS = 20_000
BATCH = 10_000

console = Console(highlight=False)


def main(events: int = typer.Option(1_000_000, min=1, help="Events in the log.")) -> None:
    """Seconds of a full build for both profiles."""
    seconds = {}
    for profile in PROFILES:
        with live_shop(profile) as shop:
            fill(shop.settings, events)
            began_s = time.monotonic()
            command = [sys.executable, "-m", "features", "build"]
            subprocess.run(command, check=True, cwd=ROOT, env=environment(shop.settings))
            seconds[profile] = time.monotonic() - began_s
    table = Table("full build", "events", "seconds")
    for name, taken_s in seconds.items():
        table.add_row(name, f"{events:,}", f"{taken_s:.1f}")
    console.print(table)
    console.print(str(record.write("feature_build", {"events": events, "seconds": seconds})))


def fill(settings: Settings, events: int) -> None:
    """Writes the log."""
    draw, now_ms = random.Random(0), time.time_ns() // 1_000_000
    engine = open_database(settings.log_url)
    log = EventLog(engine)
    for start in range(0, events, BATCH):
        log.append(
            [_event(draw, number, events, now_ms) for number in range(start, min(start + BATCH, events))], now_ms
        )
    engine.dispose()


def _event(draw: random.Random, number: int, events: int, now_ms: int) -> NewEvent:
    return NewEvent(
        event_id=f"event-{number}",
        event_type=4 if draw.random() < 0.05 else 1,
        event_time_ms=now_ms - (events - number) * 1_000,
        user_id=f"user-{draw.randrange(max(1, events // EVENTS_A_SHOPPER))}",
        session_id=None,
        item_id=f"item-{draw.randrange(ITEMS)}",
    )


if __name__ == "__main__":
    typer.run(main)
