"""Erases persons, one at a time, in a thread of its own: it takes seconds to minutes and ends though nobody waits."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy.exc import SQLAlchemyError

from features.database.engine import DatabaseError
from features.erasure.erase import ErasureIncomplete, erase
from features.outage import words
from features.settings import Settings
from server.deadline import Deadline
from server.errors import DeadlinePassed, Overloaded, Unavailable

LOG = logging.getLogger(__name__)

MAX_WAITING = 16
"""Erasures that wait for the one under way."""
BUDGET_S = 600.0


class Eraser:
    """One object a process; processes of one shop take turns."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._held = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="eraser")

    async def erase(self, user_id: str, session_id: str, deadline: Deadline) -> None:
        """Everything is gone when it returns.

        Raises:
            Overloaded: too many erasures wait.
            DeadlinePassed: the caller's time is over; the erasure goes on.
            Unavailable: something is left; the message says what.
        """
        if self._held > MAX_WAITING:
            raise Overloaded(f"{MAX_WAITING} erasures wait, no more are taken; send it again", retry_after_s=10.0)
        self._held += 1
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._erase, user_id, session_id)
        work.add_done_callback(self._done)
        try:
            await asyncio.wait_for(asyncio.shield(work), deadline.left_s(BUDGET_S))
        except asyncio.TimeoutError:
            raise DeadlinePassed("the erasure takes longer and goes on; call again to learn of its end") from None
        except ErasureIncomplete as error:
            raise Unavailable(str(error)) from None
        except (DatabaseError, SQLAlchemyError):
            raise Unavailable("the database does not answer now; nothing was erased, call again") from None

    def close(self) -> None:
        """Ends the thread after the erasure under way; those that wait are not begun."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _erase(self, user_id: str, session_id: str) -> None:
        started_s = time.monotonic()
        try:
            erase(self._settings, user_id=user_id, session_id=session_id)
        except Exception as error:
            LOG.error("an erasure is not complete: %s", words(error))
            raise
        LOG.info("a person was erased in %.1f s", time.monotonic() - started_s)

    def _done(self, work: asyncio.Future[None]) -> None:
        self._held -= 1
        if not work.cancelled():
            work.exception()  # logged where it happened; its caller may be gone
