"""How soon an acknowledged event shows in Recommend, while the shop takes events at a steady rate.

    python -m benchmarks.freshness [--seconds 30] [--rate 200]

For each profile (SQLite; PostgreSQL and Redis) a gateway and a stream worker run on a shop of their own. Events come
through gRPC, one a call; a probe writes one of its own, and asks Recommend from its acknowledgement until the answer's
last_event_time is the event's. Prints p50, p99 and the longest, and the worker's share of a core; keeps them as JSON in
benchmarks/results/.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

import grpc
import numpy as np
import psutil
import typer
import uvloop
from rich.table import Table

from benchmarks import record
from benchmarks.live_shop import PROFILES, LiveShop, live_shop
from braid.v1 import event_pb2 as events_pb
from braid.v1 import event_pb2_grpc, recommendation_pb2_grpc
from braid.v1 import recommendation_pb2 as pb
from features.database.engine import open_database
from features.log.event_log import EventLog, NewEvent
from features.offline.build import build
from features.settings import Settings
from features.shop.catalogue import Catalogue, CatalogueItem
from features.terminal import console

TARGET_P99_MS = 150.0
TARGET_P50_MS = 50.0
SHOPPERS = 2_000
ITEMS = 1_000
EVENTS_BEFORE = 40_000
POLL_S = 0.005
WARM_UP_S = 3.0
PROBES = 2

Call = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """Milliseconds from acknowledgement to the first answer that knows of the event; shares of one core."""

    probes: int
    p50_ms: float
    p99_ms: float
    longest_ms: float
    worker_cores: float
    gateway_cores: float


def main(
    seconds: float = typer.Option(30.0, min=1, help="Length of the measurement."),
    rate: float = typer.Option(200.0, min=1, help="Events a second."),
) -> None:
    """Freshness of Recommend for both profiles."""
    measured: dict[str, Freshness] = {}
    for profile in PROFILES:
        with live_shop(profile) as shop:
            fill(shop.settings)
            measured[profile] = uvloop.run(measure(shop, seconds, rate))
    table = Table(f"{rate:g} events/s", "probes", "p50 ms", "p99 ms", "longest ms", "worker, cores", "gateway, cores")
    for name, it in measured.items():
        waits = [f"{value:.1f}" for value in (it.p50_ms, it.p99_ms, it.longest_ms)]
        table.add_row(name, str(it.probes), *waits, f"{it.worker_cores:.2f}", f"{it.gateway_cores:.2f}")
    console.print(table)
    console.print(f"Targets: p50 at most {TARGET_P50_MS:g} ms, p99 at most {TARGET_P99_MS:g} ms.")
    figures = {name: asdict(it) for name, it in measured.items()}
    console.print(str(record.write("freshness", {"rate": rate, "seconds": seconds, "profiles": figures})))
    if any(it.p50_ms > TARGET_P50_MS or it.p99_ms > TARGET_P99_MS for it in measured.values()):
        sys.exit(1)


def fill(settings: Settings) -> None:
    """A shop whose shoppers have been here before."""
    engine = open_database(settings.log_url)
    Catalogue(engine).upsert(
        [CatalogueItem(item_id=f"item-{n}", category_path=[f"Category {n % 20}"]) for n in range(ITEMS)]
    )
    draw, now_ms = random.Random(0), time.time_ns() // 1_000_000
    before = [
        NewEvent(
            event_id=f"before-{number}",
            event_type=4 if number % 20 == 0 else 1,
            event_time_ms=now_ms - (EVENTS_BEFORE - number) * 60_000,
            user_id=f"user-{draw.randrange(SHOPPERS)}",
            session_id=None,
            item_id=f"item-{draw.randrange(ITEMS)}",
        )
        for number in range(EVENTS_BEFORE)
    ]
    EventLog(engine).append(before, now_ms)
    engine.dispose()
    build(settings)


async def measure(shop: LiveShop, seconds: float, rate: float) -> Freshness:
    """Writes at the rate and probes meanwhile."""
    gateway, worker = shop.start_gateway(), shop.start_worker()
    shop.until_it_follows(worker)
    processes = [psutil.Process(process.pid) for process in (worker, gateway)]
    async with grpc.aio.insecure_channel(shop.settings.gateway_address) as channel:
        writes = event_pb2_grpc.EventServiceStub(channel).WriteEvents
        recommend = recommendation_pb2_grpc.RecommendationServiceStub(channel).Recommend
        async with written_steadily(writes, rate):
            await asyncio.sleep(WARM_UP_S)
            cpu_s, began_s = [sum(process.cpu_times()[:2]) for process in processes], time.monotonic()
            probes = (probe(writes, recommend, f"probe-{n}", began_s + seconds) for n in range(PROBES))
            waits = [wait for found in await asyncio.gather(*probes) for wait in found]
            elapsed_s = time.monotonic() - began_s
        used_s = [sum(process.cpu_times()[:2]) for process in processes]
    ms = np.array(waits) * 1000
    return Freshness(
        probes=len(waits),
        p50_ms=float(np.percentile(ms, 50)),
        p99_ms=float(np.percentile(ms, 99)),
        longest_ms=float(ms.max()),
        worker_cores=(used_s[0] - cpu_s[0]) / elapsed_s,
        gateway_cores=(used_s[1] - cpu_s[1]) / elapsed_s,
    )


@asynccontextmanager
async def written_steadily(writes: Call, rate: float) -> AsyncIterator[None]:
    """The context has the load of `write_steadily` beside it.

    Raises:
        AssertionError, grpc.RpcError: a write failed, so the context had no load from then on; at its end.
    """
    load = asyncio.create_task(write_steadily(writes, rate))
    try:
        yield
    finally:
        load.cancel()
        with suppress(asyncio.CancelledError):
            await load


async def write_steadily(writes: Call, rate: float) -> None:
    """Writes an event for one of the shoppers every 1 / `rate` seconds, without waiting for the last one."""
    draw, next_s = random.Random(1), time.monotonic()
    under_way = set[asyncio.Task[int]]()
    try:
        while True:
            user_id, item_id = f"user-{draw.randrange(SHOPPERS)}", f"item-{draw.randrange(ITEMS)}"
            under_way.add(asyncio.create_task(write(writes, user_id, item_id)))
            next_s += 1 / rate
            await asyncio.sleep(next_s - time.monotonic())
            for ended in [task for task in under_way if task.done()]:
                under_way.remove(ended)
                ended.result()
    finally:
        for task in under_way:
            task.cancel()


async def write(writes: Call, user_id: str, item_id: str) -> int:
    """Writes an event of now, acknowledged when this returns; gives its time in milliseconds."""
    event = events_pb.Event(event_id=uuid4().hex, type=events_pb.EVENT_TYPE_VIEW, user_id=user_id, item_id=item_id)
    event.event_time.FromMilliseconds(time.time_ns() // 1_000_000)
    answer = await writes(events_pb.WriteEventsRequest(events=[event]), timeout=20)
    assert answer.statuses[0].code == events_pb.EventStatus.CODE_STORED, answer
    return int(event.event_time.ToMilliseconds())


async def probe(writes: Call, recommend: Call, user_id: str, until_s: float) -> list[float]:
    """Seconds from acknowledgement to sight, one after the other."""
    waits = []
    request = pb.RecommendRequest(user_id=user_id, page_size=10)
    while time.monotonic() < until_s:
        time_ms = await write(writes, user_id, "item-0")
        acknowledged_s = time.monotonic()
        while (await recommend(request, timeout=20)).last_event_time.ToMilliseconds() < time_ms:
            await asyncio.sleep(POLL_S)
        waits.append(time.monotonic() - acknowledged_s)
        await asyncio.sleep(random.uniform(0, 0.05))  # in step with nothing
    return waits


if __name__ == "__main__":
    typer.run(main)
