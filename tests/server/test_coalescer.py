"""Requests gather behind a call that is under way, and never behind an idle pipe."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from weakref import WeakSet

import pytest

from server.infer.coalescer import Coalescer
from tests.conditions import eventually_async


class Pipe:
    """Answers with the double once it is let; remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()

    async def run(self, requests: Sequence[int]) -> list[int]:
        self.batches.append(list(requests))
        await self.gate.wait()
        if 13 in requests:
            raise ValueError("thirteen")
        return [2 * request for request in requests]


async def until(pipe: Pipe, batches: int) -> None:
    async def reached() -> bool:
        return len(pipe.batches) >= batches

    await eventually_async(reached)


async def test_an_idle_pipe_makes_nobody_wait_and_a_busy_one_gathers() -> None:
    pipe = Pipe()
    coalescer = Coalescer(pipe.run, line="test", max_batch=3)
    calls = [asyncio.ensure_future(coalescer.submit(number, 5)) for number in range(6)]
    await until(pipe, 1)
    assert pipe.batches == [[0]]
    pipe.gate.set()
    assert await asyncio.gather(*calls) == [0, 2, 4, 6, 8, 10]
    assert pipe.batches == [[0], [1, 2, 3], [4, 5]]


async def taught(pipe: Pipe, under_way: list[int], usual_s: float = 0.5, max_batch: int = 3) -> Coalescer[int, int]:
    """A free pipe that waits for others, whose calls have taken so long so far."""
    coalescer = Coalescer(pipe.run, line="test", max_batch=max_batch, under_way=lambda: under_way[0])
    first = asyncio.ensure_future(coalescer.submit(0, 5))
    await until(pipe, 1)
    asyncio.get_running_loop().call_later(usual_s, pipe.gate.set)
    await first
    pipe.batches.clear()
    return coalescer


async def test_a_free_pipe_waits_until_all_who_are_under_way_are_here() -> None:
    pipe, under_way = Pipe(), [1]
    coalescer = await taught(pipe, under_way)
    under_way[0] = 2
    first = asyncio.ensure_future(coalescer.submit(1, 5))
    await asyncio.sleep(0)
    assert pipe.batches == []
    assert await asyncio.gather(first, coalescer.submit(2, 5)) == [2, 4]
    assert pipe.batches == [[1, 2]]


async def test_of_many_who_are_under_way_half_are_waited_for() -> None:
    pipe, under_way = Pipe(), [1]
    coalescer = await taught(pipe, under_way, max_batch=8)
    under_way[0] = 6
    calls = [asyncio.ensure_future(coalescer.submit(number, 5)) for number in (1, 2)]
    await asyncio.sleep(0)
    assert pipe.batches == []
    calls.append(asyncio.ensure_future(coalescer.submit(3, 5)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert pipe.batches == [[1, 2, 3]]
    assert await asyncio.gather(*calls) == [2, 4, 6]


async def test_nobody_waits_long_for_one_who_does_not_come() -> None:
    pipe, under_way = Pipe(), [1]
    coalescer = await taught(pipe, under_way)
    under_way[0] = 2
    assert [await coalescer.submit(number, 5) for number in (1, 2)] == [2, 4]
    assert pipe.batches == [[1], [2]]


async def test_who_is_in_a_hurry_waits_for_nobody() -> None:
    pipe, under_way = Pipe(), [1]
    coalescer = await taught(pipe, under_way)
    under_way[0] = 2
    hurried = asyncio.ensure_future(coalescer.submit(1, 0.03))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert pipe.batches == [[1]]
    await asyncio.gather(hurried, return_exceptions=True)  # a busy machine may be too slow for it


async def test_who_is_alone_does_not_wait() -> None:
    pipe, under_way = Pipe(), [1]
    coalescer = await taught(pipe, under_way)
    only = asyncio.ensure_future(coalescer.submit(1, 5))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert pipe.batches == [[1]]
    assert await only == 2


async def test_several_calls_may_be_in_flight() -> None:
    pipe = Pipe()
    coalescer = Coalescer(pipe.run, line="test", max_batch=3, in_flight=2)
    for _ in range(2):  # as many afterwards as at first
        calls = [asyncio.ensure_future(coalescer.submit(number, 5)) for number in range(3)]
        await until(pipe, 2)
        assert pipe.batches == [[0], [1]]
        pipe.gate.set()
        assert await asyncio.gather(*calls) == [0, 2, 4]
        pipe.gate.clear()
        pipe.batches.clear()


async def test_a_caller_who_gave_up_is_not_sent() -> None:
    pipe = Pipe()
    coalescer = Coalescer(pipe.run, line="test", max_batch=3)
    first = asyncio.ensure_future(coalescer.submit(0, 5))
    await until(pipe, 1)
    with pytest.raises(asyncio.TimeoutError):
        await coalescer.submit(1, 0.01)
    last = asyncio.ensure_future(coalescer.submit(2, 5))
    pipe.gate.set()
    assert await asyncio.gather(first, last) == [0, 4]
    assert pipe.batches == [[0], [2]]


async def test_behind_a_call_that_hangs_nothing_is_kept_that_nobody_waits_for() -> None:
    gate, kept = asyncio.Event(), WeakSet[asyncio.Event]()

    async def hang(requests: Sequence[asyncio.Event]) -> Sequence[asyncio.Event]:
        await gate.wait()
        return requests

    async def give_up() -> None:
        request = asyncio.Event()  # anything that a weak reference may name
        kept.add(request)
        with pytest.raises(asyncio.TimeoutError):
            await coalescer.submit(request, 0.01)

    coalescer = Coalescer(hang, line="test", max_batch=3)
    hangs = asyncio.ensure_future(coalescer.submit(gate, 5))
    await asyncio.sleep(0)
    await asyncio.gather(*(give_up() for _ in range(20)))
    gc.collect()
    assert not kept
    gate.set()
    assert await hangs is gate


async def test_no_time_left_is_no_call() -> None:
    pipe = Pipe()
    with pytest.raises(asyncio.TimeoutError):
        await Coalescer(pipe.run, line="test", max_batch=3).submit(1, 0)
    assert pipe.batches == []


async def test_a_failure_reaches_its_batch_alone() -> None:
    pipe = Pipe()
    coalescer = Coalescer(pipe.run, line="test", max_batch=1)
    calls = [asyncio.ensure_future(coalescer.submit(number, 5)) for number in (1, 13, 2)]
    pipe.gate.set()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert answers[0] == 2 and answers[2] == 4
    assert isinstance(answers[1], ValueError)
