"""A gateway knows how long its callers wait in gRPC's line, also while its own question still stands in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY

from server.overload import self_probe
from server.overload.self_probe import SelfProbe
from tests.conditions import eventually_async


class Health(health_pb2_grpc.HealthServicer):
    """Answers while it may, or drops what comes with the status that gRPC drops it with."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.drops = False
        self.dropped = 0
        self.asked = 0

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        """Late, if need be."""
        self.asked += 1
        if self.drops:
            self.dropped += 1
            await context.abort(grpc.StatusCode.CANCELLED)
        await self.may_answer.wait()
        return health_pb2.HealthCheckResponse()


@asynccontextmanager
async def probed(health: Health) -> AsyncIterator[SelfProbe]:
    """A probe that asks a server in this process."""
    server, probe = grpc.aio.server(), SelfProbe()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    asking = asyncio.ensure_future(probe.follow(f"127.0.0.1:{port}"))
    try:
        yield probe
    finally:
        asking.cancel()
        await server.stop(None)


async def reach(probe: SelfProbe, least_s: float, most_s: float) -> None:
    """Until the line is so long."""

    async def reached() -> None:
        while not least_s <= probe.line_s() <= most_s:
            await asyncio.sleep(0.005)

    await asyncio.wait_for(reached(), 10)


async def test_a_question_without_an_answer_counts_by_its_age_and_an_answered_one_until_the_next() -> None:
    health = Health()
    async with probed(health) as probe:
        await reach(probe, 0.3, 1.0)
        health.may_answer.set()
        await reach(probe, 0.0, 0.1)
        health.may_answer.clear()
        await reach(probe, 0.3, 1.0)


async def test_an_answer_counts_and_is_shown_until_the_next_question_which_comes_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(self_probe, "EVERY_S", 60)
    monkeypatch.setattr(self_probe, "QUICK_S", 30)
    health = Health()
    health.may_answer.set()
    async with probed(health) as probe:

        async def settled() -> bool:
            before_s = probe.line_s()
            await asyncio.sleep(0.05)
            return health.asked == 1 and 0 < before_s == probe.line_s()

        await eventually_async(settled, what="an answer")
        assert REGISTRY.get_sample_value("braid_unseen_seconds") == probe.line_s()


async def test_after_a_slow_answer_the_next_question_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_probe, "EVERY_S", 60)
    monkeypatch.setattr(self_probe, "QUICK_S", 1e-6)
    health = Health()
    health.may_answer.set()

    async def asked_again() -> bool:
        return health.asked > 5

    async with probed(health):
        await eventually_async(asked_again, what="more questions")


async def test_a_question_that_is_given_up_is_a_long_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_probe, "TIMEOUT_S", 0.3)
    async with probed(Health()) as probe:
        await reach(probe, 0.2, 0.25)
        for _ in range(50):
            await asyncio.sleep(0.02)
            assert probe.line_s() >= 0.2


async def test_a_line_so_long_that_grpc_drops_the_question_is_as_long_as_it_was() -> None:
    health = Health()
    async with probed(health) as probe:
        await reach(probe, 0.3, 1.0)
        health.drops = True
        health.may_answer.set()
        while health.dropped < 10:
            await asyncio.sleep(0.005)
            assert probe.line_s() >= 0.3
        health.drops = False
        await reach(probe, 0.0, 0.1)


async def test_a_gateway_that_cannot_ask_itself_refuses_nobody_for_it() -> None:
    probe = SelfProbe()
    asking = asyncio.ensure_future(probe.follow("127.0.0.1:1"))
    try:
        for _ in range(20):
            await asyncio.sleep(0.02)
            assert probe.line_s() < 0.2
        assert not asking.done()
    finally:
        asking.cancel()
