"""Refuses a call before its message is received, for about the price of an empty method."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from server.errors import Overloaded
from server.metrics import CALLS, CALLS_REFUSED, REFUSAL_SECONDS
from server.overload.admission import RETRY_AFTER_S, TOO_MANY, Admission
from server.services.statuses import grpc_status

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def refusing(status: grpc.Status, told: Callable[[], None] = lambda: None) -> Handler:
    """In place of a method of any kind: says `status` and waits for no message. `told` is called when it is said."""

    async def refuse(_messages: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        context.set_code(status.code)
        context.set_details(status.details)
        context.set_trailing_metadata(status.trailing_metadata)
        told()

    return grpc.stream_stream_rpc_method_handler(refuse)


class EarlyRefusal(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Stands before the unary methods of one service."""

    def __init__(self, service: ServiceDescriptor, admission: Admission) -> None:
        self._calls = {
            f"/{service.full_name}/{method.name}": CALLS.labels(method.name, grpc.StatusCode.RESOURCE_EXHAUSTED.name)
            for method in service.methods
        }
        self._admission = admission
        self._status = grpc_status(Overloaded(TOO_MANY, retry_after_s=RETRY_AFTER_S))
        self._refused = CALLS_REFUSED.labels("delay")

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The method, or in its place one that refuses."""
        calls = self._calls.get(handler_call_details.method)
        if calls is None or not self._admission.full:
            return await continuation(handler_call_details)
        seen_s = time.perf_counter()

        def told() -> None:
            self._refused.inc()
            calls.inc()
            REFUSAL_SECONDS.observe(time.perf_counter() - seen_s)

        return refusing(self._status, told)
