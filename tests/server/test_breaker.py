"""A part that does not answer is left alone, but for a trial now and then."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import numpy as np
import pytest
from prometheus_client import REGISTRY

from server.deadline import Deadline
from server.errors import ModelUnavailable
from server.infer.breaker import Breaker, Breakers
from server.infer.model import Model
from server.infer.triton import Triton
from tests.clock import Clock


def test_three_failures_in_a_row_open_it_and_a_success_closes_it() -> None:
    clock = Clock()
    breaker = Breaker("part", failures=3, retry_s=1.0, clock=clock)
    for _ in range(2):
        breaker.failed("slow")
    breaker.succeeded()
    for _ in range(2):
        breaker.failed("slow")
    assert breaker.allows()
    breaker.failed("slow")
    assert not breaker.allows()
    clock.now_s += 1.0
    assert breaker.allows()
    assert not breaker.allows()  # one trial, not two
    breaker.failed("slow")
    assert not breaker.allows()
    clock.now_s += 1.0
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.allows() and breaker.allows()


def shown(release: int) -> float | None:
    """What the metrics say of a release's breaker; None: nothing."""
    return REGISTRY.get_sample_value("braid_breaker_open", {"part": f"triton release={release}"})


def test_the_metrics_tell_of_a_release_while_it_is_held_whatever_late_requests_meet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)  # Feast sets it where another test reads history
    breakers = Breakers()
    breakers.hold(7)
    under_way = breakers.of(7)
    for _ in range(3):
        under_way.failed("slow")
    assert breakers.of(7).open and shown(7) == 1
    breakers.forget(7)
    for _ in range(3):
        breakers.of(7).failed("Triton has unloaded it")
        under_way.failed("Triton has unloaded it")
    under_way.succeeded()
    assert breakers.of(7).allows() and shown(7) is None
    breakers.hold(7)
    assert breakers.of(7).allows() and shown(7) == 0
    breakers.forget(7)


def test_item_vectors_that_do_not_come_open_the_models_breaker(tmp_path: Path) -> None:
    async def never(_request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def ask_one_that_is_silent() -> list[str]:
        server = grpc.aio.server()
        handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(never)}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        triton, breakers = Triton(f"127.0.0.1:{port}", tmp_path, call_timeout_s=5.0), Breakers()
        breakers.hold(7)
        model, found = Model(triton, breakers, budget_s=0.2), list[str]()
        for _ in range(4):
            deadline = Deadline.after(1.0)
            with pytest.raises(ModelUnavailable) as raised:
                await model.item_vectors(7, np.zeros((1, 4), np.int32), deadline)
            found.append(raised.value.reason)
            assert (deadline.in_vain_s > 0.15) == (raised.value.reason == "slow")
        assert breakers.of(7).open
        await triton.close()
        await server.stop(None)
        return found

    assert asyncio.run(ask_one_that_is_silent()) == ["slow", "slow", "slow", "gone"]
