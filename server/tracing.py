"""OpenTelemetry traces: a span for each call, one for each stage, and one for each batch that stages wait for.

Off unless `BRAID_GATEWAY_TRACE_ADDRESS` names an OTLP collector; then `BRAID_GATEWAY_TRACE_RATE` of the calls are
traced, and those whose caller traces them (`traceparent` in the call's metadata). Triton is told the trace of its call
in the same way. A batch belongs to the first traced call in it and is linked to the others. Spans carry no ids of
shoppers, sessions or items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Token
from threading import Thread
from typing import TYPE_CHECKING

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.direct import DIRECT

if TYPE_CHECKING:
    from grpc.aio import Metadata

SERVICE = "braid-gateway"
END_S = 3.0
"""Longest wait for a collector to take the last spans; a silent one would hold up a gateway's end for half a minute."""
_PROPAGATOR = TraceContextTextMapPropagator()
_tracer: trace.Tracer | None = None


def start_tracing(address: str, rate: float) -> Callable[[], None]:
    """Sends spans to the collector at `host:port`; what it returns sends the last ones, for at most `END_S`.

    Args:
        rate: share of the calls that are traced where their caller says nothing about it.
    """
    global _tracer
    # Imported here: a gateway without traces does without the memory.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(rate)),
        resource=Resource.create({"service.name": SERVICE}),
        shutdown_on_exit=False,  # `end` does it
    )
    exporter = OTLPSpanExporter(endpoint=address, insecure=True, channel_options=(DIRECT,))  # type: ignore[arg-type]
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = provider.get_tracer("server")

    def end() -> None:
        global _tracer
        _tracer = None
        last = Thread(target=provider.shutdown, name="last spans", daemon=True)
        last.start()
        last.join(END_S)

    return end


class CallSpan:
    """The span of one call, current until `end`."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token: Token[Context] = contexts.attach(trace.set_span_in_context(span))

    def end(self, code: str) -> None:
        """With the name of the call's status."""
        self._span.set_attribute("rpc.grpc.status", code)
        self._span.end()
        contexts.detach(self._token)


def call_span(method: str, metadata: Metadata | None) -> CallSpan | None:
    """Begins the span of a call; None where nothing is traced."""
    if _tracer is None:
        return None
    carrier = {key: value for key, value in metadata or () if isinstance(value, str)}
    parent = _PROPAGATOR.extract(carrier, context=Context())
    return CallSpan(_tracer.start_span(method, context=parent, kind=SpanKind.SERVER))


def begin_span(name: str) -> Span | None:
    """A child of the current call's span, for the caller to end; None unless that call is traced."""
    if _tracer is None or not trace.get_current_span().is_recording():
        return None
    return _tracer.start_span(name)


def current_span() -> Span | None:
    """That of the call that is being worked on; None unless it is traced."""
    if _tracer is None:
        return None
    span = trace.get_current_span()
    return span if span.is_recording() else None


@contextmanager
def batch_span(line: str, members: Sequence[Span | None]) -> Iterator[None]:
    """The span of a batch's call, current within; `members` are the calls whose requests go together."""
    if _tracer is None:
        yield
        return
    traced = [span for span in members if span is not None]
    if not traced:
        token = contexts.attach(Context())  # whoever began this batch is not in it
        try:
            yield
        finally:
            contexts.detach(token)
        return
    with _tracer.start_as_current_span(
        f"{line} batch",
        context=trace.set_span_in_context(traced[0], Context()),
        kind=SpanKind.CLIENT,
        links=[Link(span.get_span_context()) for span in traced[1:]],
        attributes={"batch.size": len(members)},
    ):
        yield


def outgoing() -> tuple[tuple[str, str], ...]:
    """Metadata that tells the next server the current trace; empty where nothing is traced."""
    if _tracer is None or not trace.get_current_span().is_recording():
        return ()
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return tuple(carrier.items())
