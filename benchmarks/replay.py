"""Taobao's real traffic through the event door, faster than it was: what waits, and whether all of it arrives.

    python -m benchmarks.replay --data <folder with user_behavior.csv.gz> [--speed 100]

The file is Taobao UserBehavior (Alibaba, tianchi.aliyun.com/dataset/649) or a slice of it: user, item, category, type
and second a line, no header. Each event is sent when its second comes, `speed` times as fast; what is due at once goes
together, up to 100 a call. For each profile (SQLite; PostgreSQL and Redis) prints the time to the acknowledgement and
how long after the last one the stream worker is done; then every event must be in the log once and every online row be
the one that a batch build makes. Exits with 1 where not.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import grpc
import numpy as np
import polars as pl
import typer
import uvloop
from rich.table import Table
from tqdm import tqdm

from benchmarks import record
from benchmarks.equivalence import differences
from benchmarks.live_shop import PROFILES, LiveShop, live_shop
from braid.v1 import event_pb2 as pb
from braid.v1 import event_pb2_grpc
from features.database.engine import open_database
from features.log.event_log import EventLog
from features.stream.stream_positions import stream_position
from features.terminal import console
from tests.conditions import eventually

FILE = "user_behavior.csv.gz"
TYPES = {"pv": pb.EVENT_TYPE_VIEW, "cart": pb.EVENT_TYPE_CART, "fav": pb.EVENT_TYPE_FAVOURITE}
TYPES["buy"] = pb.EVENT_TYPE_PURCHASE
BATCH = 100

Write = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One profile: events and seconds, milliseconds to the acknowledgement, and what was found at the end."""

    events: int
    seconds: float
    p50_ms: float
    p99_ms: float
    behind_s: float
    """How late the last event was sent."""
    worker_done_s: float
    missing: int
    different_rows: int


def main(
    data: Annotated[Path, typer.Option(help="Folder of the file.")],
    speed: Annotated[float, typer.Option(min=1, help="How many times as fast as it was.")] = 100.0,
) -> None:
    """Replays the file into both profiles."""
    path = data / FILE
    if not path.is_file():
        sys.exit(f"{path} is missing; Taobao UserBehavior is at tianchi.aliyun.com/dataset/649")
    events = read(path)
    replayed = {}
    for profile in PROFILES:
        with live_shop(profile) as shop:
            replayed[profile] = replay(shop, events, speed, profile)
    table = Table(
        "profile", "events/s", "ack p50 ms", "p99 ms", "sent late s", "worker done s", "missing", "rows unlike"
    )
    for name, it in replayed.items():
        figures = (it.events / it.seconds, it.p50_ms, it.p99_ms, it.behind_s, it.worker_done_s)
        table.add_row(name, *(f"{figure:,.1f}" for figure in figures), str(it.missing), str(it.different_rows))
    console.print(table)
    kept = {name: asdict(it) for name, it in replayed.items()}
    console.print(str(record.write("replay", {"speed": speed, "profiles": kept})))
    if any(it.missing or it.different_rows for it in replayed.values()):
        sys.exit(1)


def read(path: Path) -> pl.DataFrame:
    """Columns user, item, type, second; in order of time."""
    names = ["user", "item", "category", "type", "second"]
    events = pl.read_csv(
        path, has_header=False, new_columns=names, schema_overrides={"user": pl.String, "item": pl.String}
    )
    return events.sort("second", maintain_order=True)


def replay(shop: LiveShop, events: pl.DataFrame, speed: float, name: str) -> Replayed:
    """Sends everything, waits for the worker, compares."""
    shop.start_gateway()
    worker = shop.start_worker()
    shop.until_it_follows(worker)
    waits_s, seconds, behind_s = uvloop.run(send(shop.settings.gateway_address, events, speed, name))
    engine = open_database(shop.settings.log_url)
    log = EventLog(engine)
    sent_s = time.monotonic()
    eventually(lambda: stream_position(engine) == log.last_position(), within_s=120, what="the end of the log")
    done_s = time.monotonic() - sent_s
    stored = sum(frame["event_id"].n_unique() for frame in log.scan())
    engine.dispose()
    return Replayed(
        events=events.height,
        seconds=seconds,
        p50_ms=1000 * float(np.percentile(waits_s, 50)),
        p99_ms=1000 * float(np.percentile(waits_s, 99)),
        behind_s=behind_s,
        worker_done_s=done_s,
        missing=events.height - stored,
        different_rows=len(list(differences(shop.settings))),
    )


async def send(address: str, events: pl.DataFrame, speed: float, name: str) -> tuple[list[float], float, float]:
    """Seconds to the acknowledgement of each call, seconds in all, and how late the last call was sent."""
    waits_s: list[float] = []

    async def write(batch: list[pb.Event]) -> None:
        sent_s = time.monotonic()
        answer = await writes(pb.WriteEventsRequest(events=batch), timeout=60)
        waits_s.append(time.monotonic() - sent_s)
        assert all(status.code == pb.EventStatus.CODE_STORED for status in answer.statuses), answer

    async with grpc.aio.insecure_channel(address) as channel:
        writes: Write = event_pb2_grpc.EventServiceStub(channel).WriteEvents
        first, begin_s, behind_s = int(events["second"][0]), time.monotonic(), 0.0
        progress = tqdm(total=events.height, desc=name, unit="event", mininterval=0.5)
        under_way = set[asyncio.Task[None]]()
        for second, batch in batches(events):
            wait_s = begin_s + (second - first) / speed - time.monotonic()
            await asyncio.sleep(max(wait_s, 0))
            behind_s = max(-wait_s, 0.0)
            under_way.add(asyncio.create_task(write(batch)))
            progress.update(len(batch))
            done = {task for task in under_way if task.done()}
            under_way -= done
            await asyncio.gather(*done)  # one that failed ends the replay
        await asyncio.gather(*under_way)
        progress.close()
    return waits_s, time.monotonic() - begin_s, behind_s


def batches(events: pl.DataFrame) -> Iterator[tuple[int, list[pb.Event]]]:
    """Calls in order of time, with the second in which each is due; the events happen now."""
    numbered = events.with_row_index("number")
    for (second,), due in numbered.group_by("second", maintain_order=True):
        for part in due.iter_slices(BATCH):
            now_ms = time.time_ns() // 1_000_000
            yield int(second), [_event(row, now_ms) for row in part.iter_rows(named=True)]


def _event(row: dict[str, Any], now_ms: int) -> pb.Event:
    event = pb.Event(event_id=f"taobao-{row['number']}", type=TYPES[row["type"]], user_id=row["user"])
    event.item_id = row["item"]
    event.event_time.FromMilliseconds(now_ms)
    return event


if __name__ == "__main__":
    typer.run(main)
