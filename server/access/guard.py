"""Asks each call for its API key, before its message is received: who calls, whether they may, and how often."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from server.access.key_ring import Caller, KeyRing
from server.access.scopes import is_open, needed
from server.errors import GatewayError, Overloaded, PermissionDenied, Unauthenticated
from server.metrics import CALLS_REFUSED
from server.services.early_refusal import Handler, refusing
from server.services.statuses import grpc_status

LOG = logging.getLogger(__name__)

_REASONS: dict[type[GatewayError], str] = {Unauthenticated: "key", PermissionDenied: "scope", Overloaded: "rate"}


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Stands before every method. Of a stream each message counts as a call: what is too fast waits."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The method, or in its place one that refuses."""
        method = handler_call_details.method
        if self._keys.open or is_open(method):
            return await continuation(handler_call_details)
        try:
            caller = self._keys.caller(handler_call_details.invocation_metadata or ())
            caller.check_scope(method)
            caller.check_rate()
        except (Unauthenticated, PermissionDenied, Overloaded) as error:
            CALLS_REFUSED.labels(_REASONS[type(error)]).inc()
            LOG.debug("method=%s refused=%s", method, type(error).__name__)
            return refusing(grpc_status(error))
        handler = await continuation(handler_call_details)
        if handler is not None and handler.response_streaming and needed(method) is not None:
            return self._paced(handler, caller)
        return handler

    def _paced(self, handler: Any, caller: Caller) -> Handler:
        async def call(messages: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await handler.stream_stream(self._turns(messages, caller), context)

        return grpc.stream_stream_rpc_method_handler(call, handler.request_deserializer, handler.response_serializer)

    async def _turns(self, messages: AsyncIterator[Any], caller: Caller) -> AsyncIterator[Any]:
        """The messages, each when its turn has come.

        Raises:
            Unauthenticated: the key was revoked meanwhile.
        """
        async for message in messages:
            while (wait_s := caller.wait_s()) > 0:
                await asyncio.sleep(wait_s)
            if not self._keys.in_force(caller):
                raise Unauthenticated("the key was revoked while the stream was open")
            yield message
