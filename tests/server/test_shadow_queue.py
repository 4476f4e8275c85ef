"""Copies for a shadow wait in a short line, and are dropped and counted where it is full or the gateway is busy."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from prometheus_client import REGISTRY

from server.releases.shadow_queue import MOST_WAITING, Copy, ShadowQueue

SHADOW, RELEASE = 2, 1


def copy(number: int = 0, experiment: str = "beside") -> Copy:
    """A copy that its time tells from others."""
    shadow: Any = SimpleNamespace(number=SHADOW)
    answer: Any = SimpleNamespace(release=RELEASE)
    nothing: Any = None
    return Copy(experiment, shadow, nothing, nothing, answer, took_ms=number)


def dropped() -> float:
    return REGISTRY.get_sample_value("braid_shadow_copies_total", {"outcome": "dropped"}) or 0.0


async def test_copies_beyond_the_line_are_dropped_and_counted_and_the_others_come_in_turn() -> None:
    queue, before = ShadowQueue(lambda: False), dropped()
    for number in range(MOST_WAITING + 2):
        queue.offer(copy(number))
    assert dropped() - before == 2 and queue.dropped == {("beside", SHADOW, RELEASE): 2}
    assert [(await queue.take()).took_ms for _ in range(MOST_WAITING)] == list(range(MOST_WAITING))
    next_one = asyncio.ensure_future(queue.take())
    await asyncio.sleep(0)  # it waits by now
    queue.offer(copy(99))
    assert (await next_one).took_ms == 99


async def test_a_busy_gateway_takes_no_copies_and_counts_them_by_experiment() -> None:
    busy = True
    queue, before = ShadowQueue(lambda: busy), dropped()
    queue.offer(copy())
    queue.offer(copy(experiment="another"))
    assert dropped() - before == 2
    assert queue.dropped == {(name, SHADOW, RELEASE): 1 for name in ("beside", "another")}
    busy = False
    queue.offer(copy(5))
    assert (await queue.take()).took_ms == 5
