"""Idle streams, as many as are tried: what the gateway takes, what that costs it, and how the others fare.

    python -m benchmarks.idle_streams [--streams 100000]

A gateway of its own on an empty shop. Streams are opened and nothing is sent on them, half StreamEvents and half Watch
of the health service, over connections of 1,000 streams each as far as this process may have descriptors. Then one
caller goes on with Recommend. Prints how many streams were taken, the gateway's memory and the caller's latency before
and meanwhile, and keeps them as JSON in benchmarks/results/.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import psutil
import typer
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks import record
from benchmarks.latency import Latency
from braid.v1 import recommendation_pb2 as pb
from braid.v1 import recommendation_pb2_grpc
from features.settings import Settings
from features.terminal import console
from server.overload.connections import MAX_STREAMS_A_CONNECTION
from tests.conditions import eventually_async
from tests.processes import environment, free_ports, running

EVENTS, WATCH = "/braid.v1.EventService/StreamEvents", "/grpc.health.v1.Health/Watch"
CALLS = 300
KEPT_DESCRIPTORS = 200
"""Of this process, for other things than connections."""
MIB = 1 << 20


def main(streams: int = typer.Option(100_000, min=1, help="Streams to try.")) -> None:
    """Idle streams against one gateway."""
    with TemporaryDirectory(prefix="braid-idle-") as home:
        settings = Settings(home=Path(home), model_repository=Path(home), gateway_address=f"127.0.0.1:{free_ports()}")
        with running([sys.executable, "-m", "server"], settings.logs / "gateway.log", env=environment(settings)) as it:
            figures = uvloop.run(measure(settings.gateway_address, psutil.Process(it.pid), streams))
    for name, value in figures.items():
        console.print(f"{name}: {value}")
    console.print(f"{record.write('idle-streams', figures)}")


async def measure(address: str, gateway: psutil.Process, streams: int) -> dict[str, Any]:
    """The figures."""
    most = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - KEPT_DESCRIPTORS) * MAX_STREAMS_A_CONNECTION
    tried = min(streams, most)
    ended: Counter[str] = Counter()
    async with grpc.aio.insecure_channel(address) as channel:
        health, asked = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest()

        async def serves() -> bool:
            status = (await health.Check(asked, timeout=5)).status
            return bool(status == health_pb2.HealthCheckResponse.SERVING)

        await eventually_async(serves, within_s=60, what="the gateway's start")
        recommend = recommendation_pb2_grpc.RecommendationServiceStub(channel).Recommend
        before, before_bytes = await latency(recommend), gateway.memory_info().rss
        options = [("grpc.use_local_subchannel_pool", 1)]
        others: list[Any] = [
            grpc.aio.insecure_channel(address, options) for _ in range(-(-tried // MAX_STREAMS_A_CONNECTION))
        ]
        began_s = time.perf_counter()
        calls = []
        for number in range(tried):
            other = others[number // MAX_STREAMS_A_CONNECTION]
            calls.append(other.unary_stream(WATCH)(b"") if number % 2 else other.stream_stream(EVENTS)())
            if number % 200 == 0:
                await asyncio.sleep(0)

        opened_s = began_s

        async def settled() -> bool:
            nonlocal opened_s
            done, opened_s = sum(call.done() for call in calls), time.perf_counter()
            await asyncio.sleep(0.5)
            return bool(done == sum(call.done() for call in calls))

        await eventually_async(settled, within_s=120, what="an answer to every stream")
        meanwhile, bytes_meanwhile = await latency(recommend), gateway.memory_info().rss
        for call in calls:
            if call.done():
                ended[(await call.code()).name] += 1
            call.cancel()
        for other in others:
            await other.close()
    return {
        "streams tried": tried,
        "connections": len(others),
        "streams open": tried - ended.total(),
        "streams ended": dict(ended),
        "seconds to open": round(opened_s - began_s, 1),
        "gateway MiB before": round(before_bytes / MIB, 1),
        "gateway MiB meanwhile": round(bytes_meanwhile / MIB, 1),
        "Recommend p50 ms before": round(before.p50, 2),
        "Recommend p50 ms meanwhile": round(meanwhile.p50, 2),
        "Recommend p99 ms before": round(before.p99, 2),
        "Recommend p99 ms meanwhile": round(meanwhile.p99, 2),
    }


async def latency(recommend: Any) -> Latency:
    """Of calls one after the other."""
    seconds = []
    for number in range(CALLS):
        began_s = time.perf_counter()
        await recommend(pb.RecommendRequest(user_id=f"u{number}"), timeout=10)
        seconds.append(time.perf_counter() - began_s)
    return Latency.of(seconds)


if __name__ == "__main__":
    typer.run(main)
