"""Keeps something in memory as the database has it: one way for all that is read again every moment."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Generic, TypeVar

from sqlalchemy.exc import SQLAlchemyError

Rows = TypeVar("Rows")


class FollowedTable(ABC, Generic[Rows]):
    """A table that is taken in as a whole whenever its revision has changed.

    Args:
        changed_since: all rows and their revision, None where that is the given one still; called in `threads`.
        stays: what a log line says where the database does not answer.
    """

    def __init__(
        self,
        changed_since: Callable[[int], tuple[Rows, int] | None],
        threads: Executor,
        *,
        every_s: float,
        logger: logging.Logger,
        stays: str,
    ) -> None:
        self.loaded = asyncio.Event()
        """Set once the table was read."""
        self._changed_since = changed_since
        self._threads = threads
        self._every_s = every_s
        self._logger = logger
        self._stays = stays
        self._revision = -1
        self._turn = asyncio.Lock()

    @abstractmethod
    def take(self, rows: Rows) -> None:
        """Keeps the rows in place of those of before."""

    async def refresh(self) -> None:
        """Takes in every change that is committed by now.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        async with self._turn:
            loop = asyncio.get_running_loop()
            changed = await loop.run_in_executor(self._threads, self._changed_since, self._revision)
            if changed is not None:
                rows, self._revision = changed
                self.take(rows)
            self.loaded.set()

    async def follow(self) -> None:
        """Refreshes for ever; a database that does not answer is logged once."""
        await refresh_for_ever(self.refresh, self._every_s, self._logger, self._stays)


async def refresh_for_ever(
    refresh: Callable[[], Awaitable[None]], every_s: float, logger: logging.Logger, stays: str
) -> None:
    """Calls `refresh` for ever; a database that does not answer is logged once, in the words `stays`."""
    quiet = False
    while True:
        try:
            await refresh()
            quiet = False
        except SQLAlchemyError as error:
            if not quiet:
                logger.warning("%s: %s", stays, error)
            quiet = True
        await asyncio.sleep(every_s)
