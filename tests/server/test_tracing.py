"""A traced call as a collector sees it: the call, its stages, and the batches to Feast and Triton."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from braid.v1.recommendation_pb2 import RecommendRequest
from features.schema import CONTENT_TOKENS
from server import tracing
from server.errors import ModelUnavailable
from server.infer.triton import Triton
from tests.processes import free_ports
from tests.server.client import RunningGateway, gateway

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED = [("traceparent", f"00-{TRACE}-{PARENT}-01")]
USER = "user-9"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP collector that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return collector_pb.ExportTraceServiceResponse()


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Collector, str]]:
    """A collector and its address."""
    found = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(found, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield found, f"127.0.0.1:{port}"
    server.stop(None)


def test_a_call_that_its_caller_traces_shows_its_stages_and_batches_and_no_shopper(
    collector: tuple[Collector, str], released_shop: RunningGateway
) -> None:
    found, address = collector
    settings = released_shop.settings.model_copy(update={"gateway_address": f"127.0.0.1:{free_ports()}"})
    with gateway(settings, trace_address=address, trace_rate="0") as on_it:
        stub = on_it.client.recommendations
        request = {"user_id": USER, "session_id": "a-session"}
        stub.Recommend(RecommendRequest(**request), timeout=10)
        stub.Recommend(RecommendRequest(**request), timeout=10, metadata=TRACED)
    spans = {span.name: span for span in found.spans}
    assert len(spans) == len(found.spans), "only the second call is traced"
    assert set(spans) == {
        *("Recommend", "decode", "features", "inference", "select", "encode"),
        *("features batch", "model batch"),
    }
    call = spans.pop("Recommend")
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, PARENT)
    assert {span.trace_id for span in spans.values()} == {call.trace_id}
    assert {span.parent_span_id for span in spans.values()} == {call.span_id}
    for span in spans.values():
        assert call.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
    assert "OK" in str(call.attributes)
    assert USER not in str(found.spans) and "a-session" not in str(found.spans)


async def test_triton_is_told_the_trace(collector: tuple[Collector, str], tmp_path: Any) -> None:
    told: list[dict[str, Any]] = []

    async def infer(_message: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        told.append(dict(context.invocation_metadata() or ()))
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "only the metadata matters")
        return b""

    server = grpc.aio.server()
    method = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", method),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    triton = Triton(f"127.0.0.1:{port}", tmp_path, call_timeout_s=5)
    end = tracing.start_tracing(collector[1], 0.0)
    content = np.zeros((1, CONTENT_TOKENS), np.int32)
    try:
        with pytest.raises(ModelUnavailable):
            await triton.item_vectors(1, content)
        span = tracing.call_span("Recommend", TRACED)  # type: ignore[arg-type]
        assert span is not None
        with pytest.raises(ModelUnavailable):
            await triton.item_vectors(1, content)
        span.end("OK")
    finally:
        end()
        await triton.close()
        await server.stop(None)
    assert "traceparent" not in told[0]
    assert told[1]["traceparent"].startswith(f"00-{TRACE}-") and PARENT not in told[1]["traceparent"]


def test_a_gateway_ends_soon_where_its_collector_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        end = tracing.start_tracing(f"127.0.0.1:{silent.getsockname()[1]}", 1.0)
        for _ in range(1_000):
            span = tracing.call_span("Recommend", None)
            assert span is not None
            span.end("OK")
        with silent.accept()[0]:  # the first export is under way
            started_s = time.monotonic()
            end()
            assert time.monotonic() - started_s < 2 * tracing.END_S
