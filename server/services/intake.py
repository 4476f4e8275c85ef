"""How messages come in: read by the gateway itself, so that what is slow, unreadable or too much has an end.

gRPC would wait for a call's message for as long as the caller likes, and would answer one that it cannot parse with
UNKNOWN. Here a message that is not there at once (`PROMPT_S`) is one of a few that may take longer, and has
`LONGEST_S`. Streams are counted: an open one costs memory, whether anything is sent on it or not.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from server.errors import DeadlinePassed, GatewayError, InvalidRequest, Overloaded, Violation
from server.metrics import CALLS_REFUSED
from server.overload.admission import RETRY_AFTER_S
from server.overload.untaken import Untaken
from server.services.early_refusal import Handler
from server.services.statuses import grpc_status

PROMPT_S = 0.25
LONGEST_S = 10.0
MAX_SLOW = 64
"""Messages that take longer than `PROMPT_S` at a time: with their greatest size, what bounds their memory."""

Context = grpc.aio.ServicerContext[Any, Any]
Parse = Callable[[bytes], Any]


class Intake(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Stands next to the methods, and makes streaming ones of them all: these read for themselves."""

    def __init__(self, *, max_streams: int, watch: str) -> None:
        """Takes `max_streams` open calls of the method `watch`, and as many of all other streams together."""
        self.slow = 0
        self.untaken = Untaken()
        self._max_streams = max_streams
        self._watch = watch
        self._streams = {True: 0, False: 0}
        self._methods: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The method, read by `Intake`."""
        method = handler_call_details.method
        found = self._methods.get(method)
        if found is None:
            handler = await continuation(handler_call_details)
            if handler is None:  # nobody serves it
                return handler
            reading = (
                self._stream(handler, method == self._watch) if handler.response_streaming else _unary(self, handler)
            )
            found = self._methods[method] = reading
        return found

    async def message(self, context: Context, parse: Parse) -> Any:
        """A call's one message.

        Raises:
            InvalidRequest: there is none, or it cannot be parsed.
            DeadlinePassed, Overloaded: it does not come in time.
        """
        waiting = _Waiting(self)
        try:
            message = await context.read()
        except asyncio.CancelledError:
            if waiting.refusal is None:
                raise
            raise waiting.refusal from None
        finally:
            waiting.end()
        if message is grpc.aio.EOF:  # type: ignore[attr-defined]
            raise InvalidRequest([Violation("request", "is missing; a call sends one message")])
        return _parsed(message, parse)

    def _stream(self, handler: Any, watches: bool) -> Handler:
        method = handler.stream_stream or handler.unary_stream
        parse, one_message = handler.request_deserializer, not handler.request_streaming

        async def call(messages: AsyncIterator[bytes], context: Context) -> None:
            try:
                if self._streams[watches] >= self._max_streams:
                    CALLS_REFUSED.labels("memory").inc()
                    raise Overloaded(
                        f"{self._max_streams} streams are open, no more are taken", retry_after_s=RETRY_AFTER_S
                    )
                self._streams[watches] += 1
                try:
                    requests = await self.message(context, parse) if one_message else _each(messages, parse)
                    answered = method(requests, context)
                    if inspect.isasyncgen(answered):
                        async for response in answered:
                            await context.write(response)
                    else:
                        await answered
                finally:
                    self._streams[watches] -= 1
            except GatewayError as error:
                await context.abort_with_status(grpc_status(error))  # type: ignore[attr-defined]

        return grpc.stream_stream_rpc_method_handler(call, None, handler.response_serializer)


class _Waiting:
    """One message on its way; `refusal` is set where it was waited for too long, and the task is cancelled then."""

    __slots__ = ("_intake", "_slow", "_task", "_timer", "refusal")

    def __init__(self, intake: Intake) -> None:
        self.refusal: GatewayError | None = None
        self._intake = intake
        self._task = asyncio.current_task()
        self._slow = False
        self._timer = asyncio.get_running_loop().call_later(PROMPT_S, self._is_slow)

    def end(self) -> None:
        """It came, or nobody waits any longer."""
        self._timer.cancel()
        self._intake.slow -= self._slow

    def _is_slow(self) -> None:
        if self._intake.slow >= MAX_SLOW:
            CALLS_REFUSED.labels("memory").inc()
            text = f"{MAX_SLOW} large or slow messages are on their way already; send again later"
            self._give_up(Overloaded(text, retry_after_s=RETRY_AFTER_S))
            return
        self._slow = True
        self._intake.slow += 1
        text = f"the call's message did not come within {LONGEST_S:g} s"
        self._timer = asyncio.get_running_loop().call_later(LONGEST_S, self._give_up, DeadlinePassed(text))

    def _give_up(self, refusal: GatewayError) -> None:
        assert self._task is not None
        self.refusal = refusal
        self._task.cancel()


def _unary(intake: Intake, handler: Any) -> Handler:
    method, parse = handler.unary_unary, handler.request_deserializer

    async def call(_messages: AsyncIterator[bytes], context: Context) -> Any:
        try:
            request = await intake.message(context, parse)
        except GatewayError as error:
            await context.abort_with_status(grpc_status(error))  # type: ignore[attr-defined]
        answer = await method(request, context)
        intake.untaken.given(context.peer())
        return answer

    return grpc.stream_unary_rpc_method_handler(call, None, handler.response_serializer)


async def _each(messages: AsyncIterator[bytes], parse: Parse) -> AsyncIterator[Any]:
    async for message in messages:
        yield _parsed(message, parse)


def _parsed(message: bytes, parse: Parse) -> Any:
    try:
        return parse(message)
    except DecodeError:
        raise InvalidRequest([Violation("request", "is no message of this method's type")]) from None
