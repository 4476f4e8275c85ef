"""Every method of the gateway with made-up requests: only the statuses that the contract names may come back.

    python -m benchmarks.fuzz [--inputs 100000] [--seed 0]

A gateway of its own on an empty shop. Hypothesis makes the messages from the protos' descriptors: ordinary values, so
that a part gets past the checks, extreme and odd ones, unset fields, and bytes that are no message at all. Streams get
several messages. Each request is sent as it is made and in `VARIANTS` more forms, with bytes changed, cut and doubled.
Prints how often each method answered with which status, and fails at the first that is not documented, with the request
that led to it.
"""

from __future__ import annotations

import math
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import typer
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from rich.table import Table

from features.settings import Settings
from features.terminal import console
from server.gateway import SERVICES
from tests.processes import environment, free_ports, running, tail, until_up

DOCUMENTED = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)
TIMEOUT_S = 30.0
VARIANTS = 9
MOST_OF_A_FIELD = 4
MOST_MESSAGES = 3
DEEPEST = 4
SELDOM = 20
"""DeleteUser does minutes of work in a large shop and still much in an empty one: one input of so many."""

Kind = FieldDescriptor
_INTEGERS = {
    Kind.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    Kind.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    Kind.CPPTYPE_UINT32: (0, 2**32 - 1),
    Kind.CPPTYPE_UINT64: (0, 2**64 - 1),
}


@dataclass(frozen=True, slots=True)
class Scalars:
    """What goes into fields that hold no message."""

    texts: st.SearchStrategy[str]
    integers: st.SearchStrategy[int]
    numbers: st.SearchStrategy[float]


_USUAL = ("_id", "_ids", "event_time", "type", "action")
"""Ends of the names of fields without which hardly a request is taken."""
_ORDINARY = Scalars(
    st.sampled_from(["u", "i", "a", "price", "a/b"]),
    st.integers(0, 10),
    st.sampled_from([0.25, 0.5, 1.0]),
)
_ODD = Scalars(
    st.one_of(
        st.sampled_from(["", "\0", "é" * 129, "x" * 1001, "' OR 1=1 --", "\U0001f6d2"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    ),
    st.integers(),
    st.one_of(st.sampled_from([0.0, -0.0, float("nan"), float("inf"), 1e308]), st.floats()),
)


@dataclass(frozen=True, slots=True)
class Request:
    """A call to be made. `messages` are serialized; a unary method gets the first."""

    method: str
    streams: bool
    messages: tuple[bytes, ...]


class Unexpected(Exception):
    """A status that the contract does not name."""


def main(
    inputs: int = typer.Option(100_000, min=1, help="Requests, spread over all methods."),
    first: int = typer.Option(0, "--seed", help="Another seed makes other requests."),
) -> None:
    """Sends made-up requests to every method."""
    with TemporaryDirectory(prefix="braid-fuzz-") as home:
        own = Settings(home=Path(home), model_repository=Path(home), gateway_address=f"127.0.0.1:{free_ports()}")
        log = own.logs / "gateway.log"
        with (
            running([sys.executable, "-m", "server"], log, env=environment(own)) as process,
            grpc.insecure_channel(own.gateway_address) as channel,
        ):
            health, asked = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest()
            serving = health_pb2.HealthCheckResponse.SERVING
            until_up(process, lambda: health.Check(asked).status == serving, log, what="the gateway")
            try:
                counts = fuzz(channel, inputs, first)
            except Unexpected as error:
                sys.exit(f"{error}\nThe gateway's log ends with:\n{tail(log, 20)}")
            if process.poll() is not None:
                sys.exit(f"The gateway ended:\n{tail(log, 20)}")
    table = Table("method", "inputs", "statuses")
    for method, codes in sorted(counts.items()):
        table.add_row(
            method.rpartition(".")[2],
            str(codes.total()),
            ", ".join(f"{code.name} {n}" for code, n in codes.most_common()),
        )
    console.print(table)
    console.print(f"{sum(codes.total() for codes in counts.values())} inputs, no undocumented status.")


def fuzz(channel: Any, inputs: int, first: int) -> dict[str, Counter[grpc.StatusCode]]:
    """How often each method answered with which status.

    Raises:
        Unexpected: with one that is not documented.
    """
    counts: dict[str, Counter[grpc.StatusCode]] = defaultdict(Counter)

    def count(request: Request, error: Any) -> None:
        code = error.code() if error is not None else grpc.StatusCode.OK
        counts[request.method][code] += 1
        if error is not None and code not in DOCUMENTED:
            raise Unexpected(f"{request.method} answered {code.name} ({error.details()}) to {request.messages!r}")

    @seed(first)
    @settings(
        max_examples=math.ceil(inputs / (1 + VARIANTS)),
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(requests(), st.integers(0, 2**32))
    def one(request: Request, number: int) -> None:
        forms = [request, *varied(request, random.Random(number))]
        if request.streams:
            for form in forms:
                error: Any = None
                try:
                    for _ in channel.stream_stream(form.method)(iter(form.messages), timeout=TIMEOUT_S):
                        pass
                except grpc.RpcError as ended:
                    error = ended
                count(form, error)
        else:
            call = channel.unary_unary(request.method)
            for form, answer in [(form, call.future(form.messages[0], timeout=TIMEOUT_S)) for form in forms]:
                count(form, answer.exception())

    one()
    return dict(counts)


def requests() -> st.SearchStrategy[Request]:
    """Requests for every method of the services, each about as often."""
    pool = descriptor_pool.Default()
    methods = [method for name in SERVICES for method in pool.FindServiceByName(name).methods]
    often = [method for method in methods for _ in range(1 if method.name == "DeleteUser" else SELDOM)]
    return st.sampled_from(often).flatmap(_request)


def varied(request: Request, draw: random.Random) -> Iterator[Request]:
    """The request with the bytes of its messages changed."""
    for _ in range(VARIANTS):
        yield replace(request, messages=tuple(_changed(message, draw) for message in request.messages))


def _changed(message: bytes, draw: random.Random) -> bytes:
    """With a few bits turned, or bytes replaced, left out or doubled."""
    first = draw.randrange(len(message) + 1)
    last = min(len(message), first + draw.choice((1, 1, 1, 2, 4, 8)))
    piece = message[first:last]
    turned = bytes(byte ^ 1 << draw.randrange(8) for byte in piece)
    other = bytes(draw.choice((0, 1, 0x7F, 0x80, 0xFF)) for _ in piece)
    return message[:first] + draw.choice((turned, other, b"", piece + piece)) + message[last:]


def _request(method: MethodDescriptor) -> st.SearchStrategy[Request]:
    ordinary, odd = (_message(method.input_type, values) for values in (_ORDINARY, _ODD))
    wire = st.one_of(
        st.builds(_serialized, ordinary),
        st.builds(_serialized, ordinary),
        st.builds(_serialized, odd),
        st.binary(max_size=60),
    )
    streams = bool(method.client_streaming)
    count = MOST_MESSAGES if streams else 1
    messages = st.lists(wire, min_size=0 if streams else 1, max_size=count).map(tuple)
    name = f"/{method.containing_service.full_name}/{method.name}"
    return st.builds(Request, st.just(name), st.just(streams), messages)


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _message(descriptor: Descriptor, scalars: Scalars, depth: int = 0) -> st.SearchStrategy[Message]:
    """Messages of a type, with any of its fields."""
    kept = [field for field in descriptor.fields if depth < DEEPEST or field.message_type is None]
    values = {field.name: _field(field, scalars, depth) for field in kept}

    def build(fields: dict[str, Any]) -> Message:
        return message_factory.GetMessageClass(descriptor)(**fields)

    usual = {name for name in values if scalars is _ORDINARY and name.endswith(_USUAL)}
    rest = {name: value for name, value in values.items() if name not in usual}
    with_usual = st.fixed_dictionaries({name: values[name] for name in usual}, optional=rest)
    return st.one_of(with_usual, st.fixed_dictionaries({}, optional=values)).map(build)


def _field(field: FieldDescriptor, scalars: Scalars, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        parts = field.message_type.fields_by_name
        return st.dictionaries(
            _value(parts["key"], scalars, depth), _value(parts["value"], scalars, depth), max_size=MOST_OF_A_FIELD
        )
    one = _value(field, scalars, depth)
    return st.lists(one, max_size=MOST_OF_A_FIELD) if field.is_repeated else one


def _value(field: FieldDescriptor, scalars: Scalars, depth: int) -> st.SearchStrategy[Any]:
    kind = field.cpp_type
    if field.message_type is not None:
        return _message(field.message_type, scalars, depth + 1)
    if kind == Kind.CPPTYPE_BOOL:
        return st.booleans()
    if field.enum_type is not None:
        known = st.sampled_from([value.number for value in field.enum_type.values])
        return known if scalars is _ORDINARY else st.one_of(known, st.integers(-1, 99))
    if kind in _INTEGERS:
        return scalars.integers.filter(lambda value: _INTEGERS[kind][0] <= value <= _INTEGERS[kind][1])
    assert field.type != Kind.TYPE_BYTES, f"{field.full_name}: say here which bytes are made up for it"
    return scalars.texts if kind == Kind.CPPTYPE_STRING else scalars.numbers


if __name__ == "__main__":
    typer.run(main)
