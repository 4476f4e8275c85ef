"""Events through gRPC into the log, beside an empty grpc.aio method that takes the same messages in the same run.

    python -m benchmarks.ingestion [--seconds 60] [--database URL]

This process is the client. For SQLite and, where its binaries are installed, PostgreSQL (or for --database alone, an
empty database), it starts a gateway on a fresh shop and writes single events, batches of 100, and batches of 100 over
one stream. Sessions begin anonymously and sign in. Prints events a second, the time to the acknowledgement, the
gateway's memory, and how many times more the empty method takes; keeps them as JSON in benchmarks/results/.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import typer
import uvloop
from rich.table import Table

from benchmarks import postgres, record
from benchmarks.empty_server import METHOD
from benchmarks.latency import empty_server
from benchmarks.live_shop import fresh_shop
from braid.v1 import event_pb2 as pb
from braid.v1 import event_pb2_grpc
from features.terminal import console

BATCH = 100
SINGLE_CALLS, BATCH_CALLS = 64, 8
"""Calls in flight."""
TARGETS = {"single events": 800, "batches of 100": 5_000, "stream of 100s": 5_000}
Send = Callable[[pb.WriteEventsRequest], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Measured:
    """One way of writing to one database."""

    database: str
    way: str
    events_per_s: float
    p50_ms: float
    p99_ms: float
    start_mib: float
    end_mib: float
    cpu_us: float
    """The gateway's processor time per event, which other work on the machine lengthens less than the clock's."""
    empty_ratio: float
    """Events that the empty method takes in the same time."""


def main(
    seconds: float = typer.Option(60.0, min=1.0, help="How long each way of writing is measured."),
    database: str = typer.Option("", help="URL of an empty database; both kinds if not given."),
) -> None:
    """Ingestion through gRPC."""
    measured: list[Measured] = []
    with ExitStack() as servers:
        urls = {database.split(":")[0]: database} if database else {"sqlite": ""}
        if not database and postgres.installed():
            urls["postgresql"] = servers.enter_context(postgres.cluster())
        for name, url in urls.items():
            with fresh_shop({"database_url": url} if url else {}) as shop:
                process = shop.start_gateway()
                measured += uvloop.run(measure(name, shop.settings.gateway_address, process.pid, seconds))
    show(measured)
    figures = {"seconds": seconds, "measured": [asdict(row) for row in measured]}
    console.print(f"{record.write('ingestion', figures)}")


async def measure(database: str, address: str, pid: int, seconds: float) -> list[Measured]:
    """Every way of writing, each beside the empty method."""
    measured = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = event_pb2_grpc.EventServiceStub(channel)
        ways = {"single events": (1, SINGLE_CALLS), f"batches of {BATCH}": (BATCH, BATCH_CALLS)}
        for way, (size, calls) in ways.items():
            answer = await stub.WriteEvents(next(endless_requests(size)))
            empty = await empty_rate(size, calls, len(answer.SerializeToString()), seconds)
            work = unary(stub.WriteEvents, size, calls)
            measured.append(await timed(database, way, pid, seconds, size, work, empty))
        work = streamed(stub, BATCH_CALLS)
        measured.append(await timed(database, f"stream of {BATCH}s", pid, seconds, BATCH, work, empty))
    return measured


async def timed(
    database: str, way: str, pid: int, seconds: float, size: int, work: Callable[..., Awaitable[None]], empty: float
) -> Measured:
    """Figures of `work(samples_s, end_s)`, after a tenth of the time to warm up."""
    await work([], time.perf_counter() + seconds / 10)
    samples_s: list[float] = []
    start_mib, start_cpu_s, started = memory_mib(pid), cpu_s(pid), time.perf_counter()
    await work(samples_s, started + seconds)
    events = size * len(samples_s)
    rate = events / (time.perf_counter() - started)
    p50, p99 = np.percentile(np.array(samples_s) * 1000, [50, 99])
    return Measured(
        database=database,
        way=way,
        events_per_s=rate,
        p50_ms=float(p50),
        p99_ms=float(p99),
        start_mib=start_mib,
        end_mib=memory_mib(pid),
        cpu_us=1e6 * (cpu_s(pid) - start_cpu_s) / events,
        empty_ratio=empty / rate,
    )


def unary(send: Send, size: int, calls: int) -> Callable[[list[float], float], Awaitable[None]]:
    """`calls` callers who each wait for their answer."""

    async def caller(samples_s: list[float], end_s: float) -> None:
        for request in endless_requests(size):
            sent = time.perf_counter()
            if sent > end_s:
                return
            await send(request)
            samples_s.append(time.perf_counter() - sent)

    async def work(samples_s: list[float], end_s: float) -> None:
        await asyncio.gather(*(caller(samples_s, end_s) for _ in range(calls)))

    return work


def streamed(stub: Any, in_flight: int) -> Callable[[list[float], float], Awaitable[None]]:
    """One stream with up to `in_flight` unanswered requests."""

    async def work(samples_s: list[float], end_s: float) -> None:
        window = asyncio.Semaphore(in_flight)
        sent: list[float] = []

        async def requests() -> AsyncIterator[pb.StreamEventsRequest]:
            for request in endless_requests(BATCH):
                await window.acquire()
                if time.perf_counter() > end_s:
                    return
                sent.append(time.perf_counter())
                yield pb.StreamEventsRequest(events=request.events)

        async for _ in stub.StreamEvents(requests()):
            samples_s.append(time.perf_counter() - sent[len(samples_s)])
            window.release()

    return work


async def empty_rate(size: int, calls: int, answer_bytes: int, seconds: float) -> float:
    """Events a second that an empty method takes in the same messages."""
    with empty_server(answer_bytes) as port:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            serialize = pb.WriteEventsRequest.SerializeToString
            send = channel.unary_unary(METHOD, request_serializer=serialize, response_deserializer=None)
            await send(next(endless_requests(size)), wait_for_ready=True, timeout=20)
            samples_s: list[float] = []
            started = time.perf_counter()
            await unary(send, size, calls)(samples_s, started + max(1.0, seconds / 10))
            return size * len(samples_s) / (time.perf_counter() - started)


def endless_requests(size: int) -> Iterator[pb.WriteEventsRequest]:
    """Requests of `size` events; a visit has ten, and after three of them the shopper signs in."""
    draw = random.Random()
    request = pb.WriteEventsRequest(events=[pb.Event(type=pb.EVENT_TYPE_VIEW) for _ in range(size)])
    number = 0
    while True:
        for event in request.events:
            if number % 10 == 0:
                user, session = f"user-{draw.randrange(100_000)}", f"{draw.getrandbits(64):016x}"
            event.event_id = f"{draw.getrandbits(128):032x}"
            event.user_id = user if number % 10 > 2 else ""
            event.session_id = session
            event.item_id = f"item-{draw.randrange(10_000)}"
            event.event_time.GetCurrentTime()
            number += 1
        yield request


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu_s(pid: int) -> float:
    """Processor time that a process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def show(measured: list[Measured]) -> None:
    """The table."""
    table = Table(
        "database", "way", "events/s", "target", "p50 ms", "p99 ms", "gateway MiB", "CPU us/event", "empty method takes"
    )
    for row in measured:
        target = TARGETS[row.way]
        table.add_row(
            row.database,
            row.way,
            f"{row.events_per_s:,.0f}",
            f"{target:,} {'met' if row.events_per_s >= target else 'MISSED'}",
            f"{row.p50_ms:.1f}",
            f"{row.p99_ms:.1f}",
            f"{row.start_mib:.0f} to {row.end_mib:.0f}",
            f"{row.cpu_us:.0f}",
            f"{row.empty_ratio:.1f} times as many",
        )
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
