"""Around every call: deadline, request id, load limit, log line; the one place where errors become gRPC statuses."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from server.deadline import Deadline
from server.errors import DeadlinePassed, GatewayError, InvalidRequest, NotFound, Overloaded, Unavailable
from server.logs import REQUEST_ID

LOG = logging.getLogger(__name__)

MAX_REQUEST_ID_CHARS = 64


class CallLimit:
    """How many calls this process works on at once."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.under_way = 0


class Service(Protocol):
    """What `answers` needs of a servicer."""

    limit: CallLimit


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
        started_s = time.perf_counter()
        token = REQUEST_ID.set(_request_id(context))
        limit = self.limit
        limit.under_way += 1
        try:
            deadline = Deadline.after(context.time_remaining())
            if deadline.left_s(math.inf) <= 0:
                raise DeadlinePassed("the deadline had passed when the call arrived; allow more time")
            if limit.under_way > limit.most:
                raise Overloaded(f"{limit.most} calls are under way, no more are taken", retry_after_s=0.5)
            response = await method(self, request, deadline)
        except GatewayError as error:
            status = _status(error)
            LOG.info("method=%s code=%s error=%s", method.__name__, _name(status), type(error).__name__)
            await context.abort_with_status(rpc_status.to_status(status))  # type: ignore[attr-defined]
            raise AssertionError("abort raises") from None
        except Exception:
            LOG.exception("method=%s failed", method.__name__)
            await context.abort(
                grpc.StatusCode.INTERNAL, f"the gateway failed; its log has request id {REQUEST_ID.get()}"
            )
            raise AssertionError("abort raises") from None
        finally:
            limit.under_way -= 1
            REQUEST_ID.reset(token)
        if LOG.isEnabledFor(logging.DEBUG):
            LOG.debug("method=%s code=OK ms=%.1f", method.__name__, 1000 * (time.perf_counter() - started_s))
        return response

    return call


def _request_id(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "x-request-id" and isinstance(value, str):
            return value[:MAX_REQUEST_ID_CHARS]
    return uuid4().hex[:16]


def _status(error: GatewayError) -> status_pb2.Status:
    details: list[Message] = []
    if isinstance(error, InvalidRequest):
        code = code_pb2.INVALID_ARGUMENT
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=violation.description)
            for violation in error.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    elif isinstance(error, NotFound):
        code = code_pb2.NOT_FOUND
    elif isinstance(error, Overloaded):
        code = code_pb2.RESOURCE_EXHAUSTED
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(1000 * error.retry_after_s))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    elif isinstance(error, DeadlinePassed):
        code = code_pb2.DEADLINE_EXCEEDED
    else:
        assert isinstance(error, Unavailable), error
        code = code_pb2.UNAVAILABLE
    packed = []
    for detail in details:
        holder = any_pb2.Any()
        holder.Pack(detail)
        packed.append(holder)
    return status_pb2.Status(code=code, message=str(error)[:2_000], details=packed)


def _name(status: status_pb2.Status) -> str:
    return str(code_pb2.Code.Name(status.code))
