"""Gateway and stream worker killed again and again under load: is anything lost, stored twice, or wrong online?

    python -m benchmarks.kills [--kills 100]

For each profile (SQLite with one stream worker; PostgreSQL and Redis with three) a storefront writes events of users,
sessions and sign-ins through gRPC, and sends again what was not acknowledged, as a storefront does. Meanwhile gateway
or worker is killed (SIGKILL) at a random moment and started again. At the end every acknowledged event must be in the
log once, and every online row must be the one that a batch build makes from the log. Exits with 1 where not.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

import grpc
import typer
from rich.table import Table

from benchmarks import record
from benchmarks.acknowledged import acknowledged_ids, logged_ids
from benchmarks.equivalence import differences
from benchmarks.live_shop import CHANNEL, PROFILES, LiveShop, live_shop
from braid.v1 import event_pb2 as pb
from braid.v1 import event_pb2_grpc
from features.database.engine import open_database
from features.log.event_log import EventLog
from features.settings import Settings
from features.stream.stream_positions import stream_position
from features.terminal import console
from tests.conditions import eventually

SHOPPERS = 200
BATCH = 20
LONGEST_PAUSE_S = 1.5
WORKERS = {"sqlite": 1, "postgresql+redis": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was found after the kills."""

    kills: int
    acknowledged: int
    lost: int
    twice: int
    different_rows: int


def main(kills: int = typer.Option(100, min=1, help="Kills in each profile.")) -> None:
    """Kills, then counts."""
    outcomes = {}
    for profile in PROFILES:
        with live_shop(profile) as shop:
            outcomes[profile] = run(shop, kills, WORKERS[profile])
    table = Table("profile", "workers", "kills", "acknowledged", "lost", "twice", "rows unlike a build's")
    for name, it in outcomes.items():
        figures = (WORKERS[name], it.kills, it.acknowledged, it.lost, it.twice, it.different_rows)
        table.add_row(name, *(f"{figure:,}" for figure in figures))
    console.print(table)
    console.print(str(record.write("kills", {name: asdict(it) for name, it in outcomes.items()})))
    if any(it.lost or it.twice or it.different_rows for it in outcomes.values()):
        sys.exit(1)


def run(shop: LiveShop, kills: int, workers: int) -> Outcome:
    """Kills parts of a shop under load."""
    draw = random.Random(kills)
    gateway, streams = shop.start_gateway(), [shop.start_worker() for _ in range(workers)]
    for worker in streams:
        shop.until_it_follows(worker)
    with storefront(shop.settings.gateway_address) as acknowledged:
        for _ in range(kills):
            time.sleep(draw.uniform(0, LONGEST_PAUSE_S))
            if draw.random() < 0.5:
                gateway.kill()
                gateway.wait()
                gateway = shop.start_gateway()
            else:
                number = draw.randrange(workers)
                streams[number].kill()
                streams[number].wait()
                streams[number] = shop.start_worker()
    return _compare(shop.settings, kills, acknowledged)


@contextmanager
def storefront(address: str) -> Iterator[list[str]]:
    """One that writes until the context ends; yields the ids of the events that were acknowledged.

    Raises:
        AssertionError: a gateway refused an event, at the context's end.
    """
    acknowledged: list[str] = []
    end = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(_write, address, acknowledged, end)
        try:
            yield acknowledged
        finally:
            end.set()
    writing.result()


def _write(address: str, acknowledged: list[str], end: threading.Event) -> None:
    """Writes batches one after the other; a batch that was not acknowledged is sent again as it was."""
    draw, number = random.Random(0), 0
    with grpc.insecure_channel(address, CHANNEL) as channel:
        write = event_pb2_grpc.EventServiceStub(channel).WriteEvents
        while not end.is_set():
            batch = [_event(draw, number + place) for place in range(BATCH)]
            answer = _answer(write, batch, end)
            stored = acknowledged_ids(answer)
            assert len(stored) == len(answer.statuses), answer
            acknowledged += stored
            number += BATCH


def _answer(
    write: Callable[..., pb.WriteEventsResponse], batch: list[pb.Event], end: threading.Event
) -> pb.WriteEventsResponse:
    """Of whichever call is answered; an empty one where none is until the end."""
    while not end.is_set():
        with suppress(grpc.RpcError):
            return write(pb.WriteEventsRequest(events=batch), timeout=10)
        end.wait(0.05)
    return pb.WriteEventsResponse()


def _event(draw: random.Random, number: int) -> pb.Event:
    """An event of a session, which now and then belongs to a person, early or late."""
    session = draw.randrange(SHOPPERS)
    event = pb.Event(
        event_id=f"event-{number}",
        type=pb.EVENT_TYPE_PURCHASE if draw.random() < 0.2 else pb.EVENT_TYPE_VIEW,
        session_id=f"session-{number // 2_000}-{session}",
        user_id=f"user-{session}" if draw.random() < 0.3 else "",
        item_id=f"item-{draw.randrange(50)}",
    )
    late_ms = draw.randrange(10_000_000) if draw.random() < 0.2 else 0
    event.event_time.FromMilliseconds(time.time_ns() // 1_000_000 - late_ms)
    return event


def _compare(settings: Settings, kills: int, acknowledged: list[str]) -> Outcome:
    engine = open_database(settings.log_url)
    log = EventLog(engine)
    eventually(lambda: stream_position(engine) == log.last_position(), within_s=300, what="the end of the log")
    stored = logged_ids(log)
    engine.dispose()
    return Outcome(
        kills=kills,
        acknowledged=len(acknowledged),
        lost=len(set(acknowledged) - set(stored)),
        twice=len(stored) - len(set(stored)),
        different_rows=len(list(differences(settings))),
    )


if __name__ == "__main__":
    typer.run(main)
