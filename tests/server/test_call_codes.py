"""What a call is counted as is what its caller saw of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from braid.v1 import event_pb2, event_pb2_grpc
from braid.v1 import recommendation_pb2 as rec
from braid.v1 import recommendation_pb2_grpc as rec_grpc
from server.deadline import Deadline
from server.metrics import CALLS
from server.overload.admission import FEWEST, Admission, CallLimit
from server.services.calls import Limit, answers, answers_stream
from server.services.early_refusal import EarlyRefusal
from tests.conditions import eventually_async

LATE, CANCELLED = grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED


class Slow(rec_grpc.RecommendationServiceServicer, event_pb2_grpc.EventServiceServicer):
    """Methods that take longer than their caller waits."""

    limit: Limit

    def __init__(self) -> None:
        self.limit = CallLimit(10)
        self.under_way = asyncio.Event()

    @answers
    async def Recommend(self, request: rec.RecommendRequest, deadline: Deadline) -> rec.RecommendResponse:
        """Waits for a part that says nothing."""
        self.under_way.set()
        await asyncio.Event().wait()
        return rec.RecommendResponse()

    @answers
    async def Rank(self, request: rec.RankRequest, deadline: Deadline) -> rec.RankResponse:
        """Is busy itself until the deadline has passed."""
        while deadline.left_s(math.inf) > -0.01:
            pass
        return rec.RankResponse()

    @answers_stream
    async def StreamEvents(
        self, requests: AsyncIterator[event_pb2.StreamEventsRequest], deadline: Deadline
    ) -> AsyncGenerator[event_pb2.StreamEventsResponse, None]:
        """Says nothing."""
        async for _ in requests:
            yield event_pb2.StreamEventsResponse()


def counted(method: str, code: grpc.StatusCode) -> float:
    """Calls that have ended so, in this process."""
    samples = (sample for family in CALLS.collect() for sample in family.samples if sample.name.endswith("_total"))
    labels = {"method": method, "code": code.name}
    return sum(sample.value for sample in samples if sample.labels == labels)


@pytest.mark.parametrize(
    ("method", "patience_s", "seen", "expected"),
    [
        ("Recommend", 0.2, LATE, LATE),
        ("Recommend", 1.234, LATE, LATE),  # reaches the server as 1.24
        ("Recommend", None, CANCELLED, CANCELLED),
        ("Rank", 0.05, LATE, LATE),
        ("StreamEvents", 0.2, LATE, grpc.StatusCode.OK),  # it has lasted for as long as it was to
    ],
)
async def test_a_call_is_counted_as_what_its_caller_saw(
    method: str, patience_s: float | None, seen: grpc.StatusCode, expected: grpc.StatusCode
) -> None:
    slow, server = Slow(), grpc.aio.server()
    rec_grpc.add_RecommendationServiceServicer_to_server(slow, server)
    event_pb2_grpc.add_EventServiceServicer_to_server(slow, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    before = counted(method, expected)

    async def is_counted() -> bool:
        return counted(method, expected) == before + 1

    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stubs = rec_grpc.RecommendationServiceStub(channel), event_pb2_grpc.EventServiceStub(channel)
            calls: dict[str, Callable[[], Any]] = {
                "Recommend": lambda: stubs[0].Recommend(rec.RecommendRequest(), timeout=patience_s),
                "Rank": lambda: stubs[0].Rank(rec.RankRequest(), timeout=patience_s),
                "StreamEvents": lambda: stubs[1].StreamEvents(timeout=patience_s),
            }
            call = calls[method]()
            if patience_s is None:
                await slow.under_way.wait()
                call.cancel()
            ended: Awaitable[grpc.StatusCode] = call.code()
            assert await ended is seen
        await eventually_async(is_counted, what="the count")
    finally:
        await server.stop(None)


def refusals() -> tuple[float, ...]:
    """What the metrics say of calls that were refused for the delay: as calls, as refusals, and how many were timed."""
    names = ("braid_calls_refused_total", {"reason": "delay"}), ("braid_refusal_seconds_count", {})
    told = (REGISTRY.get_sample_value(name, labels) or 0.0 for name, labels in names)
    return counted("Recommend", grpc.StatusCode.RESOURCE_EXHAUSTED), *told


async def test_a_call_is_refused_unread_while_too_many_are_under_way_and_counted_and_timed() -> None:
    admission = Admission(CallLimit(FEWEST), target_s=1.0)
    service = rec.DESCRIPTOR.services_by_name["RecommendationService"]
    slow, server = Slow(), grpc.aio.server(interceptors=[EarlyRefusal(service, admission)])
    rec_grpc.add_RecommendationServiceServicer_to_server(slow, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    for _ in range(FEWEST):
        admission.enter()
    before = refusals()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = rec_grpc.RecommendationServiceStub(channel)
            assert await stub.Recommend(rec.RecommendRequest(), timeout=10).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert refusals() == tuple(count + 1 for count in before) and not slow.under_way.is_set()
            admission.leave("Recommend", 0.001)
            call = stub.Recommend(rec.RecommendRequest(), timeout=10)
            await asyncio.wait_for(slow.under_way.wait(), 10)
            call.cancel()
    finally:
        await server.stop(None)
    assert refusals() == tuple(count + 1 for count in before)
