"""Freshness is measured under load or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from benchmarks.freshness import written_steadily
from braid.v1 import event_pb2 as pb


async def test_a_load_that_fails_fails_the_measurement() -> None:
    asked = asyncio.Event()

    async def refuse(request: pb.WriteEventsRequest, timeout: float) -> pb.WriteEventsResponse:
        asked.set()
        return pb.WriteEventsResponse(statuses=[pb.EventStatus(code=pb.EventStatus.CODE_INVALID)])

    with pytest.raises(AssertionError, match="CODE_INVALID"):
        async with written_steadily(refuse, 1_000.0):
            await asked.wait()
            await asyncio.sleep(0.05)


async def test_the_load_is_there_as_long_as_the_measurement() -> None:
    written, enough = 0, asyncio.Event()

    async def store(request: pb.WriteEventsRequest, timeout: float) -> Any:
        nonlocal written
        written += 1
        if written == 3:
            enough.set()
        return pb.WriteEventsResponse(statuses=[pb.EventStatus(code=pb.EventStatus.CODE_STORED)])

    async with written_steadily(store, 1_000.0):
        await enough.wait()
    after = written
    await asyncio.sleep(0.01)
    assert written == after
