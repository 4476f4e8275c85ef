"""Keeps something in memory as the database has it: one way for all that is read again every moment.

What has a counter of its changes is read when that has changed; the counters of all are read together.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Generic, Protocol, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from features.database.counters import read_counters
from features.outage import words
from server.errors import GatewayError

LOG = logging.getLogger(__name__)

POLL_S = 0.2

Rows = TypeVar("Rows", covariant=True)


class Counters:
    """Tells who follows a table that its counter has changed: one look at the database for all of them."""

    def __init__(self, engine: Engine, threads: Executor) -> None:
        self._engine = engine
        self._threads = threads
        self._news: dict[str, asyncio.Event] = {}
        self._counts: dict[str, int] = {}

    def news_of(self, counter: str) -> asyncio.Event:
        """Set whenever the counter has changed, and at first; the one who reads the table clears it before."""
        return self._news.setdefault(counter, asyncio.Event())

    async def follow(self) -> None:
        """Looks for ever; what fails is logged once."""
        await refresh_for_ever(self._look, POLL_S, LOG, "what is followed in the database stays as it is for now")

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        counts = await loop.run_in_executor(self._threads, read_counters, self._engine, list(self._news))
        for counter, count in counts.items():
            if count != self._counts.get(counter):
                self._news[counter].set()
        self._counts = counts


class CountedTable(Protocol[Rows]):
    """A table with a counter of its changes."""

    @property
    def counter(self) -> str:
        """The counter's name."""

    def changed_since(self, revision: int) -> tuple[Rows, int] | None:
        """All rows and their revision; None where that is `revision` still."""


class FollowedTable(ABC, Generic[Rows]):
    """A table that is taken in as a whole whenever its counter has changed.

    Args:
        table: read in `threads`.
        name: what a log line says of it where the database does not answer.
    """

    def __init__(self, table: CountedTable[Rows], counters: Counters, threads: Executor, *, name: str) -> None:
        self.loaded = asyncio.Event()
        """Set once the table was read."""
        self._table = table
        self._news = counters.news_of(table.counter)
        self._threads = threads
        self._name = name
        self._revision = -1
        self._turn = asyncio.Lock()

    @abstractmethod
    def take(self, rows: Rows) -> None:  # type: ignore[misc]
        """Keeps the rows in place of those of before."""

    async def refresh(self) -> None:
        """Takes in every change that is committed by now.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        async with self._turn:
            loop = asyncio.get_running_loop()
            changed = await loop.run_in_executor(self._threads, self._table.changed_since, self._revision)
            if changed is not None:
                rows, revision = changed
                self.take(rows)
                self._revision = revision
            self.loaded.set()

    async def follow(self) -> None:
        """Refreshes whenever there is news, for ever; what fails is logged once."""
        await refresh_for_ever(self._take_news, POLL_S, LOG, f"{self._name} stay as they are for now")

    async def _take_news(self) -> None:
        await self._news.wait()
        self._news.clear()
        try:
            await self.refresh()
        except Exception:
            self._news.set()  # it is still to be read
            raise


class Failures:
    """What fails from one success to the next, in a log line for each kind of error.

    Args:
        stays: the line's words, before the error's own.
    """

    def __init__(self, logger: logging.Logger, stays: str) -> None:
        self._logger = logger
        self._stays = stays
        self._told: set[type[Exception]] = set()

    def __bool__(self) -> bool:
        """Whether it has failed since it last worked."""
        return bool(self._told)

    def begin(self, error: Exception) -> None:
        """It has failed; what neither the database nor Triton is to blame for comes with its traceback."""
        if type(error) not in self._told:
            if isinstance(error, (SQLAlchemyError, GatewayError)):
                self._logger.warning("%s: %s", self._stays, words(error))
            else:
                self._logger.error("%s: %r", self._stays, error, exc_info=error)
        self._told.add(type(error))

    def end(self) -> None:
        """It works."""
        self._told.clear()


async def take_in(refresh: Callable[[], Awaitable[None]], what: str) -> None:
    """Refreshes after a write of one's own; where the database no longer answers, `what` follows when it does."""
    try:
        await refresh()
    except SQLAlchemyError as error:
        LOG.warning("%s in memory: not up to date yet: %s", what, words(error))


async def refresh_for_ever(
    refresh: Callable[[], Awaitable[None]], every_s: float, logger: logging.Logger, stays: str
) -> None:
    """Calls `refresh` for ever, whatever it raises; that is logged once, in the words `stays`."""
    failures = Failures(logger, stays)
    while True:
        try:
            await refresh()
            failures.end()
        except Exception as error:  # nobody would begin again what ends here
            failures.begin(error)
        await asyncio.sleep(every_s)
