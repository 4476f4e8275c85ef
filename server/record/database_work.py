"""Work on the database in threads, so that the event loop never waits, and its failures as the gateway's errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from features.database.engine import DatabaseError
from features.outage import Outage, words
from server.deadline import Deadline
from server.errors import DeadlinePassed, Unavailable
from server.thread_line import ThreadLine

LOG = logging.getLogger(__name__)

T = TypeVar("T")


class DatabaseWork:
    """One thread that writes and two that read.

    Args:
        what: is read and written, in the plural, for the log.
    """

    def __init__(self, what: str, *, budget_s: float) -> None:
        self._budget_s = budget_s
        self._outage = Outage(LOG, f"{what} do not answer", f"{what} answer again")
        self._writer = ThreadLine(1, name="database-writer")
        self._reader = ThreadLine(2, name="database-reader")

    async def read(self, work: Callable[[], T], deadline: Deadline) -> T:
        """What the work returns.

        Raises:
            DeadlinePassed, Unavailable: it was not done in time, or the database failed.
        """
        return await self._run(self._reader, work, deadline)

    async def write(self, work: Callable[[], T], deadline: Deadline) -> T:
        """As `read`, one after the other; what was not done in time may be done all the same."""
        return await self._run(self._writer, work, deadline)

    def close(self) -> None:
        """Ends the threads after the work under way."""
        for threads in (self._writer, self._reader):
            threads.close()

    async def _run(self, threads: ThreadLine, work: Callable[[], T], deadline: Deadline) -> T:
        timeout_s = deadline.left_s(self._budget_s)
        if timeout_s <= 0:
            raise DeadlinePassed("the deadline has passed before the database was asked")
        try:
            done = await threads.run(work, timeout_s)
        except asyncio.TimeoutError:
            raise DeadlinePassed("the database took longer than the deadline; try again") from None
        except DatabaseError as error:  # it cannot tell who was erased
            raise Unavailable(str(error)) from error
        except SQLAlchemyError as error:
            self._outage.begins(words(error))
            raise Unavailable("the database does not answer now; try again") from error
        self._outage.ends()
        return done
