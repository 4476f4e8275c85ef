"""Requests gather behind a call that is under way, and never behind an idle pipe."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

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


async def test_several_calls_may_be_in_flight() -> None:
    pipe = Pipe()
    coalescer = Coalescer(pipe.run, line="test", max_batch=3, in_flight=2)
    calls = [asyncio.ensure_future(coalescer.submit(number, 5)) for number in range(3)]
    await until(pipe, 2)
    assert pipe.batches == [[0], [1]]
    pipe.gate.set()
    assert await asyncio.gather(*calls) == [0, 2, 4]


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
