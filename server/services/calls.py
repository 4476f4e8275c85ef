"""Around every call: deadline, request id, load limit, log line, and an error's status."""

from __future__ import annotations

import functools
import logging
import math
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2
from grpc_status import rpc_status

from server.deadline import Deadline
from server.errors import DeadlinePassed, GatewayError
from server.logs import REQUEST_ID
from server.metrics import count_call, time_call
from server.services.statuses import status_of
from server.tracing import call_span

LOG = logging.getLogger(__name__)

MAX_REQUEST_ID_CHARS = 64
ROUNDED = 0.99
"""gRPC tells a server a caller's patience in three digits, rounded up: the caller may be gone so much sooner."""


class Limit(Protocol):
    """What says whether one more call is worked on."""

    def enter(self) -> None:
        """Counts a call in.

        Raises:
            Overloaded: it is one too many.
        """

    def leave(self, method: str, seconds: float) -> None:
        """Counts a call of the method out that took so long."""


class Service(Protocol):
    """What `answers` needs of a servicer."""

    limit: Limit


S = TypeVar("S", bound=Service)
Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Context = grpc.aio.ServicerContext[Any, Any]


def answers(
    method: Callable[[S, Request, Deadline], Awaitable[Response]],
) -> Callable[[S, Request, Context], Awaitable[Response]]:
    """Makes a gRPC method of `method(self, request, deadline)`, whose `GatewayError`s become statuses."""

    @functools.wraps(method)
    async def call(self: S, request: Request, context: Context) -> Response:
        async with _Call(method.__name__, self.limit, context, one_answer=True) as deadline:
            return await method(self, request, deadline)

    return call


def answers_stream(
    method: Callable[[S, AsyncIterator[Request], Deadline], AsyncGenerator[Response, None]],
) -> Callable[[S, AsyncIterator[Request], Context], Awaitable[None]]:
    """Makes a bidirectional gRPC method of an async generator; it is closed when the caller has gone."""

    @functools.wraps(method)
    async def call(self: S, requests: AsyncIterator[Request], context: Context) -> None:
        async with (
            _Call(method.__name__, self.limit, context, one_answer=False) as deadline,
            aclosing(method(self, requests, deadline)) as responses,
        ):
            async for response in responses:
                try:
                    await context.write(response)
                except grpc.aio.InternalError:  # gRPC knows before this task does that the caller has gone
                    return

    return call


class _Call:
    """One call under way: gives its deadline, and turns what it raises into a status."""

    def __init__(self, name: str, limit: Limit, context: Context, *, one_answer: bool) -> None:
        self._one_answer = one_answer
        self._patience_s = math.inf
        self._name = name
        self._limit = limit
        self._entered = False
        self._deadline = Deadline()
        self._context = context
        self._started_s = time.perf_counter()

    async def __aenter__(self) -> Deadline:
        self._token = REQUEST_ID.set(_request_id(self._context))
        self._span = call_span(self._name, self._context.invocation_metadata())
        try:
            patience_s = self._context.time_remaining()
            self._patience_s = math.inf if patience_s is None else patience_s
            self._deadline = deadline = Deadline.after(patience_s)
            if deadline.left_s(math.inf) <= 0:
                raise DeadlinePassed("the deadline had passed when the call arrived; allow more time")
            self._limit.enter()
            self._entered = True
        except GatewayError as error:
            await self.__aexit__(type(error), error, None)
            raise AssertionError("abort raises") from None
        return deadline

    async def __aexit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        code = "OK"
        try:
            if isinstance(error, GatewayError):
                status = status_of(error)
                code = str(code_pb2.Code.Name(status.code))
                LOG.debug("method=%s code=%s error=%s", self._name, code, type(error).__name__)
                await self._context.abort_with_status(rpc_status.to_status(status))  # type: ignore[attr-defined]
            elif isinstance(error, Exception):
                code = "INTERNAL"
                LOG.error("method=%s failed", self._name, exc_info=error)
                await self._context.abort(
                    grpc.StatusCode.INTERNAL, f"the gateway failed; its log has request id {REQUEST_ID.get()}"
                )
            elif error is not None:
                code = "DEADLINE_EXCEEDED" if self._is_late(ROUNDED) else "CANCELLED"
            else:
                code = "DEADLINE_EXCEEDED" if self._is_late() else "OK"
                if LOG.isEnabledFor(logging.DEBUG):
                    LOG.debug("method=%s code=%s ms=%.1f", self._name, code, 1000 * self._took_s())
        finally:
            count_call(self._name, code)
            if self._span is not None:
                self._span.end(code)
            if self._entered:
                seconds = self._took_s()
                time_call(self._name, seconds)
                self._limit.leave(self._name, seconds - self._deadline.in_vain_s)
            REQUEST_ID.reset(self._token)

    def _took_s(self) -> float:
        return time.perf_counter() - self._started_s

    def _is_late(self, share: float = 1.0) -> bool:
        """Whether this share of the caller's patience is over; that of a stream's caller says how long it may last."""
        return self._one_answer and self._took_s() >= share * self._patience_s


def _request_id(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "x-request-id" and isinstance(value, str):
            return value[:MAX_REQUEST_ID_CHARS]
    return os.urandom(8).hex()
