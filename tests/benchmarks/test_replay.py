"""Sending of the replay: every event once, and no further than to the first that is refused."""

from __future__ import annotations

import asyncio

import polars as pl
import pytest

from benchmarks.replay import send
from braid.v1 import event_pb2 as pb
from tests.benchmarks.test_kills import Door, served

EVENTS = pl.DataFrame({"user": ["u"] * 250, "item": ["i"] * 250, "type": ["pv"] * 250, "second": [0] * 150 + [1] * 100})


@pytest.fixture(autouse=True)
def _python_3_10(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(asyncio, "TaskGroup", raising=False)


async def test_what_is_due_at_once_goes_together_up_to_a_hundred() -> None:
    door = Door(pb.EventStatus.CODE_STORED)
    with served(door) as address:
        waits_s, seconds, _ = await send(address, EVENTS, 10.0, "replay")
    assert door.calls == len(waits_s) == 3 and seconds >= 0.1


async def test_an_event_that_is_refused_ends_the_replay() -> None:
    with served(Door(pb.EventStatus.CODE_INVALID)) as address, pytest.raises(AssertionError, match="CODE_INVALID"):
        await send(address, EVENTS, 10.0, "replay")
