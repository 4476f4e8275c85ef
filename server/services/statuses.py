"""The one place where errors become gRPC statuses, small enough for the trailers that a client takes.

A gRPC client takes 8 KiB of trailers; beyond that it may show RESOURCE_EXHAUSTED in place of the status. The message
goes there twice, percent-encoded and in the details, and the details in base64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from server.errors import (
    DeadlinePassed,
    GatewayError,
    InvalidRequest,
    NotFound,
    NotPossible,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Violation,
)

MAX_DETAILS_BYTES: Final = 3_500
"""Of the violations, the last one aside, which says how many more there are."""
MAX_DESCRIPTION_CHARS: Final = 300
MAX_MESSAGE_BYTES: Final = 1_000
"""Percent-encoded."""


def grpc_status(error: GatewayError) -> grpc.Status:
    """An error as gRPC says it."""
    status: grpc.Status = rpc_status.to_status(status_of(error))
    return status


def status_of(error: GatewayError) -> status_pb2.Status:
    """An error with its details; where there is too much to say, the middle of a text or the last violations go."""
    details: list[Message] = []
    if isinstance(error, InvalidRequest):
        code = code_pb2.INVALID_ARGUMENT
        error = InvalidRequest(_bounded(error.violations))
        details.append(error_details_pb2.BadRequest(field_violations=map(_message, error.violations)))
    elif isinstance(error, NotFound):
        code = code_pb2.NOT_FOUND
    elif isinstance(error, NotPossible):
        code = code_pb2.FAILED_PRECONDITION
    elif isinstance(error, Unauthenticated):
        code = code_pb2.UNAUTHENTICATED
    elif isinstance(error, PermissionDenied):
        code = code_pb2.PERMISSION_DENIED
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
    return status_pb2.Status(code=code, message=_cut(str(error), MAX_MESSAGE_BYTES, _encoded_bytes), details=packed)


def _bounded(violations: Sequence[Violation]) -> list[Violation]:
    kept: list[Violation] = []
    size = 0
    for violation in violations:
        shown = Violation(violation.field, _cut(violation.description, MAX_DESCRIPTION_CHARS, len))
        size += _message(shown).ByteSize()
        if size > MAX_DETAILS_BYTES:
            kept.append(Violation("request", f"and {len(violations) - len(kept)} more; correct these first"))
            break
        kept.append(shown)
    return kept


def _message(violation: Violation) -> error_details_pb2.BadRequest.FieldViolation:
    return error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=violation.description)


def _cut(text: str, most: int, size: Callable[[str], int]) -> str:
    """A text whose size is at most `most`: what it is about and what to do stand at its ends, so its middle goes."""
    if len(text) <= most and size(text) <= most:
        return text
    half = most // 2
    while size(shown := f"{text[:half]} ... {text[-half:]}") > most:
        half = half * 9 // 10
    return shown


def _encoded_bytes(text: str) -> int:
    return sum(1 if " " <= letter <= "~" and letter != "%" else 3 * len(letter.encode()) for letter in text)
