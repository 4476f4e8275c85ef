"""Freshness is measured under load or not at all."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import pytest

from benchmarks.freshness import written_steadily
from braid.v1 import event_pb2 as pb


async def test_a_load_that_fails_ends_the_measurement() -> None:
    async def refuse(request: pb.WriteEventsRequest, timeout: float) -> pb.WriteEventsResponse:
        return pb.WriteEventsResponse(statuses=[pb.EventStatus(code=pb.EventStatus.CODE_INVALID)])

    with pytest.raises(Exception, match="TaskGroup") as found:
        async with written_steadily(refuse, 100.0):
            await asyncio.sleep(60)
    assert "CODE_INVALID" in "".join(traceback.format_exception(found.value))


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
