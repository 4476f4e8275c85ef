"""Tables kept in memory: read again when they have changed, and only then; an outage ends by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import Engine

from features.database.counters import add_to_counter
from features.database.engine import open_database
from features.settings import Settings
from server.following import Counters, FollowedTable, take_in
from tests.conditions import eventually_async

WITHIN_S = 30


class Numbers:
    """A table of nothing but its counter."""

    def __init__(self, engine: Engine, counter: str) -> None:
        self.counter = counter
        self._engine = engine

    def change(self) -> None:
        """Counts one change."""
        with self._engine.begin() as connection:
            add_to_counter(connection, self.counter, 1)

    def changed_since(self, revision: int) -> tuple[int, int] | None:
        """The count, as rows too."""
        with self._engine.begin() as connection:
            count = add_to_counter(connection, self.counter, 0)
        return None if count == revision else (count, count)


class Followed(FollowedTable[int]):
    """Says what it has taken in."""

    def __init__(self, table: Numbers, counters: Counters, threads: ThreadPoolExecutor) -> None:
        super().__init__(table, counters, threads, name="the numbers")
        self.taken: asyncio.Queue[int] = asyncio.Queue()
        self.reads = 0
        self.cannot_take = False

    def take(self, rows: int) -> None:
        """The count."""
        if self.cannot_take:
            raise ValueError(f"{rows} is no number that this version knows")
        self.taken.put_nowait(rows)

    async def refresh(self) -> None:
        """Counts how often the table is read."""
        self.reads += 1
        await super().refresh()

    async def next(self) -> int:
        """What is taken in next."""
        return await asyncio.wait_for(self.taken.get(), WITHIN_S)


@asynccontextmanager
async def following(engine: Engine, *tables: Numbers) -> AsyncIterator[list[Followed]]:
    """The tables, followed until the end."""
    with ThreadPoolExecutor(1) as threads:
        counters = Counters(engine, threads)
        followed = [Followed(table, counters, threads) for table in tables]
        tasks = [asyncio.ensure_future(it.follow()) for it in (counters, *followed)]
        try:
            yield followed
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_table_is_read_at_first_and_when_its_own_counter_has_changed(settings: Settings) -> None:
    engine = open_database(settings.log_url)
    busy, still = Numbers(engine, "busy"), Numbers(engine, "still")
    async with following(engine, busy, still) as (on_busy, on_still):
        assert [await on_busy.next(), await on_still.next()] == [0, 0]
        for count in (1, 2, 3):
            busy.change()
            assert await on_busy.next() == count
        assert on_still.reads == 1
    engine.dispose()


async def test_a_change_during_an_outage_is_taken_in_after_it_and_the_outage_is_logged_once(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_database(settings.log_url)
    table = Numbers(engine, "numbers")
    async with following(engine, table) as (followed,):
        assert await followed.next() == 0
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE counters RENAME TO elsewhere")
        while not caplog.records:
            await asyncio.sleep(0.01)
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO counters")
        table.change()
        assert await followed.next() == 1
    assert len(caplog.records) == 1 and "stays as it is for now" in caplog.records[0].message
    engine.dispose()


async def test_what_cannot_be_taken_in_is_logged_once_and_taken_in_as_soon_as_it_can_be(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_database(settings.log_url)
    table = Numbers(engine, "numbers")
    async with following(engine, table) as (followed,):
        assert await followed.next() == 0
        followed.cannot_take, reads = True, followed.reads
        table.change()
        await eventually_async(lambda: at_least(followed, reads + 3), within_s=WITHIN_S, what="two more attempts")
        followed.cannot_take = False
        assert await followed.next() == 1
    (told,) = caplog.records
    assert "the numbers stay as they are for now" in told.message and "this version knows" in told.message
    engine.dispose()


async def test_a_write_stands_though_it_cannot_be_taken_in_at_once(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_database(settings.log_url)
    table = Numbers(engine, "numbers")
    with ThreadPoolExecutor(1) as threads:
        followed = Followed(table, Counters(engine, threads), threads)
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE counters RENAME TO elsewhere")
        await take_in(followed.refresh, "the numbers")
        assert followed.taken.empty()
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO counters")
        await take_in(followed.refresh, "the numbers")
        assert await followed.next() == 0
    (told,) = caplog.records
    assert "the numbers in memory: not up to date yet" in told.message and "\n" not in told.message
    engine.dispose()


async def at_least(followed: Followed, reads: int) -> bool:
    """Whether the table was read so often."""
    return followed.reads >= reads
