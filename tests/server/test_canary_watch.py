"""The watch over canaries outlives what keeps it from looking."""

from __future__ import annotations

import asyncio

import pytest

from features.database.engine import open_database
from features.settings import Settings
from server.releases import canaries
from server.releases.canaries import Canaries
from server.releases.election import Election
from tests.conditions import eventually_async
from tests.descriptors import no_descriptors_left


async def test_a_process_without_descriptors_watches_canaries_again_once_it_has_some(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canaries, "LOOK_S", 0.01)
    engine, path = open_database(settings.log_url), settings.home / "triton.lock"
    other, mine = Election(path), Election(path)
    assert other.won()

    async def told() -> bool:
        return "canaries stay as they are for now" in caplog.text

    async def elected() -> bool:
        third = Election(path)
        won = third.won()
        third.resign()
        return not won

    watch = Canaries(engine, mine)
    task = asyncio.ensure_future(watch.follow())
    with no_descriptors_left():
        await eventually_async(told, what="the error in the log")
    other.resign()
    await eventually_async(elected, what="the election of the process that could not look")
    assert caplog.text.count("Too many open files") >= 1 and len(caplog.records) == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.to_thread(watch.close)
    mine.resign()
    engine.dispose()
