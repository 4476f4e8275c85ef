"""Work in threads is done in order, and behind work that hangs nothing is kept that nobody waits for."""

from __future__ import annotations

import asyncio
import gc
from contextlib import closing
from functools import partial
from threading import Event
from typing import Any
from weakref import WeakSet

import pytest

from server.deadline import Deadline
from server.errors import DeadlinePassed
from server.record.database_work import DatabaseWork
from server.thread_line import ThreadLine


async def test_work_is_done_in_order_and_its_failure_is_its_callers_alone() -> None:
    done: list[int] = []

    def fail() -> None:
        raise ValueError("mine")

    with closing(ThreadLine(1, name="test")) as line:
        works: list[Any] = [partial(done.append, 1), fail, partial(done.append, 2), lambda: len(done)]
        one, failed, two, count = await asyncio.gather(
            *(line.run(work, 10.0) for work in works), return_exceptions=True
        )
    assert done == [1, 2] and (one, two, count) == (None, None, 2)
    assert isinstance(failed, ValueError)


async def test_behind_a_write_that_hangs_no_write_is_kept_that_nobody_waits_for() -> None:
    gate, ran = Event(), []
    kept: WeakSet[Event] = WeakSet()

    async def give_up() -> None:
        items = Event()  # anything that a weak reference may name
        kept.add(items)
        with pytest.raises(DeadlinePassed):
            await work.write(lambda: ran.append(items), Deadline.after(0.02))

    with closing(DatabaseWork("the shop's records", budget_s=10.0)) as work:
        hangs = asyncio.ensure_future(work.write(gate.wait, Deadline()))
        await asyncio.gather(*(give_up() for _ in range(20)))
        gc.collect()
        left = len(kept)
        gate.set()
        assert await hangs
        await work.write(lambda: None, Deadline())
    assert not ran and left == 0
