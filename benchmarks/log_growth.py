"""What one event and one request cost while the event log grows to ten million events.

    python -m benchmarks.log_growth [--most 10000000] [--profile sqlite]

The log is filled in bulk to each size. Then a gateway and a stream worker that begins at the log's end take batches of
100 events of known shoppers, one call after the other, and answer Recommend for the same shoppers. Prints the processor
time of gateway and worker for an event, which other work on the machine lengthens less than the clock's, and the median
of both calls; keeps them as JSON in benchmarks/results/. There is no release: answers are popular items, after the
feature store was read.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated
from uuid import uuid4

import grpc
import numpy as np
import psutil
import pyarrow as pa
import typer
from rich.table import Table
from tqdm import tqdm

from benchmarks import record
from benchmarks.live_shop import PROFILES, LiveShop, live_shop
from braid.v1 import event_pb2 as events_pb
from braid.v1 import event_pb2_grpc, recommendation_pb2_grpc
from braid.v1 import recommendation_pb2 as pb
from features import store
from features.database.counters import advance_counter
from features.database.engine import open_database
from features.erasure.tombstones import Tombstones
from features.importing.loading import load_events
from features.log.event_log import EventLog
from features.settings import Settings
from features.stream.stream_positions import STREAM_COUNTER, stream_position
from features.terminal import console
from tests.conditions import eventually

FIRST_SIZE = 10_000
EVENTS_A_SHOPPER = 50
ITEMS = 20_000
FILLED_AT_ONCE = 100_000
BATCH = 100
CALLS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """At one size of the log: microseconds of processor time for an event, milliseconds of a call at the median."""

    events: int
    gateway_us: float
    worker_us: float
    write_ms: float
    recommend_ms: float


def main(
    most: Annotated[int, typer.Option(min=FIRST_SIZE, help="Events in the log at the end.")] = 10_000_000,
    profile: Annotated[str, typer.Option(help=f"one of {', '.join(PROFILES)}; both if not given")] = "",
) -> None:
    """The curve, for each profile."""
    if profile and profile not in PROFILES:
        sys.exit(f"--profile: {profile!r} is not one of {', '.join(PROFILES)}")
    table = Table("profile", "events", "gateway µs/event", "worker µs/event", "100 events ms", "Recommend ms")
    curves: dict[str, list[Cost]] = {}
    for name in PROFILES:
        if profile in ("", name):
            with live_shop(name) as shop:
                curves[name] = [grow(shop, size) for size in sizes(most)]
            for it in curves[name]:
                costs = (it.gateway_us, it.worker_us, it.write_ms, it.recommend_ms)
                table.add_row(name, f"{it.events:,}", *(f"{cost:,.1f}" for cost in costs))
    console.print(table)
    console.print(
        str(record.write("log_growth", {name: [asdict(it) for it in costs] for name, costs in curves.items()}))
    )


def sizes(most: int) -> list[int]:
    """Ten times as many each time."""
    found = [FIRST_SIZE]
    while found[-1] * 10 <= most:
        found.append(found[-1] * 10)
    return found


def grow(shop: LiveShop, size: int) -> Cost:
    """Fills the log to a size and measures."""
    fill(shop.settings, size)
    store.apply(shop.settings)  # a worker that has a position expects its online store to be there
    engine = open_database(shop.settings.log_url)
    advance_counter(engine, STREAM_COUNTER, EventLog(engine).last_position())
    gateway, worker = shop.start_gateway(), shop.start_worker()
    shop.until_it_follows(worker)
    draw = random.Random(size)
    with grpc.insecure_channel(shop.settings.gateway_address) as channel:
        write = event_pb2_grpc.EventServiceStub(channel).WriteEvents
        recommend = recommendation_pb2_grpc.RecommendationServiceStub(channel).Recommend
        shoppers = [f"user-{draw.randrange(size // EVENTS_A_SHOPPER)}" for _ in range(CALLS)]
        for _ in range(10):  # warm
            write(new_batch(draw, shoppers))
        eventually(lambda: stream_position(engine) == EventLog(engine).last_position(), within_s=60, what="the worker")
        processes = [psutil.Process(process.pid) for process in (gateway, worker)]
        before_s = [sum(process.cpu_times()[:2]) for process in processes]
        writes_s = [timed(write, new_batch(draw, shoppers)) for _ in range(CALLS)]
        eventually(lambda: stream_position(engine) == EventLog(engine).last_position(), within_s=60, what="the worker")
        used_s = [sum(process.cpu_times()[:2]) - was for process, was in zip(processes, before_s, strict=True)]
        requests_s = [timed(recommend, pb.RecommendRequest(user_id=name)) for name in shoppers]
    for process in (gateway, worker):
        process.terminate()
        process.wait()
    engine.dispose()
    return Cost(
        events=size,
        gateway_us=1e6 * used_s[0] / (CALLS * BATCH),
        worker_us=1e6 * used_s[1] / (CALLS * BATCH),
        write_ms=1000 * float(np.median(writes_s)),
        recommend_ms=1000 * float(np.median(requests_s)),
    )


def timed(call: grpc.UnaryUnaryMultiCallable, request: object) -> float:  # type: ignore[type-arg]
    """Seconds of one call."""
    begin_s = time.perf_counter()
    call(request, timeout=60)
    return time.perf_counter() - begin_s


def new_batch(draw: random.Random, shoppers: list[str]) -> events_pb.WriteEventsRequest:
    """Events of now."""
    request = events_pb.WriteEventsRequest()
    for _ in range(BATCH):
        event = request.events.add(event_id=uuid4().hex, type=events_pb.EVENT_TYPE_VIEW, user_id=draw.choice(shoppers))
        event.item_id = f"item-{draw.randrange(ITEMS)}"
        event.event_time.FromMilliseconds(time.time_ns() // 1_000_000)
    return request


def fill(settings: Settings, size: int) -> None:
    """Adds events in bulk until the log holds `size`."""
    engine = open_database(settings.log_url)
    first = EventLog(engine).last_position()
    with tqdm(total=size - first, desc=f"filling to {size:,}", unit="event", mininterval=0.5) as progress:
        load_events(engine, Tombstones(settings), made_up(first, size), progress.update)
    engine.dispose()


def made_up(first: int, size: int) -> Iterator[pa.RecordBatch]:
    """Events of the past year, of shoppers who have about `EVENTS_A_SHOPPER` each, one in twenty a purchase."""
    rng, now_ms = np.random.default_rng(first), time.time_ns() // 1_000_000
    for start in range(first, size, FILLED_AT_ONCE):
        count = min(FILLED_AT_ONCE, size - start)
        shoppers = rng.integers(max(1, size // EVENTS_A_SHOPPER), size=count)
        times_ms = now_ms - rng.integers(1, 365 * 86_400_000, size=count)
        yield pa.record_batch(
            {
                "event_id": [f"filled-{number}" for number in range(start, start + count)],
                "shopper": [f"u:user-{number}" for number in shoppers],
                "item_id": [f"item-{number}" for number in rng.integers(ITEMS, size=count)],
                "event_type": pa.array(np.where(rng.random(count) < 0.05, 4, 1), pa.int32()),
                "event_time_ms": pa.array(times_ms, pa.int64()),
                "arrival_time_ms": pa.array(times_ms, pa.int64()),
            }
        )


if __name__ == "__main__":
    typer.run(main)
