"""A proxy that the environment names, as set-up may need one for its packages, stands between no parts of a shop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from braid.v1 import recommendation_pb2, recommendation_pb2_grpc
from demo.storefront import Storefront
from deploy.embedded import stack, triton_watch
from features.settings import Settings
from server import tracing
from server.infer.triton import Triton


class Ready(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A Triton whose models are all ready."""

    def ModelReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ModelReadyResponse(ready=True)


class Empty(recommendation_pb2_grpc.RecommendationServiceServicer):
    """A gateway that has nothing to recommend."""

    def Recommend(self, request: Any, context: Any) -> Any:
        return recommendation_pb2.RecommendResponse()


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Notes that spans came."""

    came = threading.Event()

    def Export(self, request: Any, context: Any) -> Any:
        self.came.set()
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a server that is Triton, gateway and collector, on a machine whose proxy nobody listens at."""
    for variable in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    server = grpc.server(ThreadPoolExecutor(2))
    healthy = health.HealthServicer()
    healthy.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Ready(), server)
    recommendation_pb2_grpc.add_RecommendationServiceServicer_to_server(Empty(), server)
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Collector(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


async def test_the_gateway_reaches_triton(address: str, tmp_path: Path) -> None:
    triton = Triton(address, tmp_path, call_timeout_s=5)
    assert await triton.serves("fusion", 1)
    await triton.close()


def test_who_ends_a_silent_triton_hears_one_that_answers(address: str, settings: Settings) -> None:
    with triton_watch.open_channel(settings.model_copy(update={"triton_address": address})) as channel:
        assert triton_watch.answers(service_pb2_grpc.GRPCInferenceServiceStub(channel))


def test_spans_reach_their_collector(address: str) -> None:
    end = tracing.start_tracing(address, 1.0)
    span = tracing.call_span("Recommend", None)
    assert span is not None
    span.end("OK")
    end()
    assert Collector.came.is_set()


def test_status_sees_the_health_of_a_gateway(address: str, settings: Settings) -> None:
    assert stack.health(settings.model_copy(update={"gateway_address": address})) == "SERVING"


def test_the_demos_storefront_reaches_the_gateway(address: str) -> None:
    with Storefront(address) as storefront:
        assert not storefront.recommend("user-1").results
