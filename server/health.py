"""The standard health service: what `Check` and `Watch` tell of this process.

The one that comes with grpcio forgets those who watch as soon as one of them leaves, and keeps their calls open while
the server wants to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

Context = grpc.aio.ServicerContext[Any, Any]


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """One status for all services. It begins as NOT_SERVING."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset(("", *services))
        self._serving = False
        self._draining = False
        self._ended = False
        self._changed = asyncio.Event()

    def serve(self) -> None:
        """SERVING from now on, unless the process is on its way out."""
        self._serving = not self._draining
        self._tell()

    def drain(self) -> None:
        """NOT_SERVING for good."""
        self._serving, self._draining = False, True
        self._tell()

    def end(self) -> None:
        """Ends the calls that watch."""
        self._ended = True
        self._tell()

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        """The status now."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "the gateway has no such service")
        return HealthCheckResponse(status=self._status(request.service))

    async def Watch(self, request: HealthCheckRequest, context: Context) -> None:
        """The status now, and each that follows."""
        told = None
        while not self._ended:
            changed, status = self._changed, self._status(request.service)
            if status == told:
                await changed.wait()
            else:
                await context.write(HealthCheckResponse(status=status))
                told = status
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the gateway has stopped")

    def _status(self, service: str) -> HealthCheckResponse.ServingStatus:
        if service not in self._services:
            return HealthCheckResponse.SERVICE_UNKNOWN
        return HealthCheckResponse.SERVING if self._serving else HealthCheckResponse.NOT_SERVING

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
