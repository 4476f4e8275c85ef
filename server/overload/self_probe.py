"""How long a call waits before the event loop takes it in: a process asks itself for its health, as a client would.

gRPC keeps calls in a line of its own, from which the event loop takes one at a time, and says nothing about it.
"""

from __future__ import annotations

import asyncio
import logging
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.following import Failures
from server.overload.admission import WINDOW_S, Admission

LOG = logging.getLogger(__name__)

TIMEOUT_S = 2.0


async def follow(address: str, admission: Admission) -> None:
    """Tells `admission` at the end of each window, for ever; a probe that has no answer yet counts by its age."""
    quickest_s, failures = TIMEOUT_S, Failures(LOG, "calls count as delayed, the gateway cannot ask itself")
    async with grpc.aio.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        asked_s = time.perf_counter()
        asked = asyncio.ensure_future(_seconds(health, failures))
        while True:
            await asyncio.sleep(WINDOW_S)
            took_s = asked.result() if asked.done() else time.perf_counter() - asked_s
            quickest_s = min(quickest_s, took_s)
            admission.adjust(took_s - quickest_s)
            if asked.done():
                asked_s = time.perf_counter()
                asked = asyncio.ensure_future(_seconds(health, failures))


async def _seconds(health: health_pb2_grpc.HealthStub, failures: Failures) -> float:
    began_s = time.perf_counter()
    try:
        await health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError:  # not in time, or on the way out
        return TIMEOUT_S
    except Exception as error:
        failures.begin(error)
        return TIMEOUT_S
    failures.end()
    return time.perf_counter() - began_s
