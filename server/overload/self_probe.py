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
from server.metrics import UNSEEN_SECONDS

LOG = logging.getLogger(__name__)

EVERY_S = 0.1
"""Between two questions while no line stands."""
QUICK_S = 0.01
"""An answer that took longer is followed by the next question after so long."""
TIMEOUT_S = 2.0


class SelfProbe:
    """One question at a time."""

    def __init__(self) -> None:
        self._asked_s: float | None = None
        self._took_s = 0.0

    def line_s(self) -> float:
        """How long calls wait: as the question before did, or as the one under way has up to now, if that is longer."""
        if self._asked_s is None:
            return self._took_s
        return max(self._took_s, time.monotonic() - self._asked_s)

    async def follow(self, address: str) -> None:
        """Asks this process at its address, for ever."""
        failures = Failures(LOG, "a line before this process stays unseen, the gateway cannot ask itself")
        async with grpc.aio.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while True:
                self._asked_s = time.monotonic()
                self._took_s = await self._ask(health, failures)
                self._asked_s = None
                UNSEEN_SECONDS.set(self._took_s)
                await asyncio.sleep(EVERY_S if self._took_s < QUICK_S else QUICK_S)

    async def _ask(self, health: health_pb2_grpc.HealthStub, failures: Failures) -> float:
        """How long a question stood in line; 0 where something else keeps the gateway from asking."""
        asked_s = time.monotonic()
        try:
            await health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                return TIMEOUT_S
            dropped = error.code() == grpc.StatusCode.CANCELLED  # by gRPC, since the line is long
            return max(self._took_s, QUICK_S) if dropped else 0.0
        except Exception as error:
            failures.begin(error)
            return 0.0
        failures.end()
        return time.monotonic() - asked_s
