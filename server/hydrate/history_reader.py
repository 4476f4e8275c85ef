"""What a shopper has done, read in the database: within the request's time, and not where that is known to be gone.

Calls wait for it, so it has threads of its own: what follows the database in the background may take seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from features.outage import words
from server.deadline import Deadline, patient
from server.errors import HistoryUnavailable
from server.infer.breaker import Breaker
from server.thread_line import ThreadLine

P = ParamSpec("P")
T = TypeVar("T")

SHARE = 0.5
"""Of what is left; the model needs the rest."""


class HistoryReader:
    """One object a process: every history is in the same database, and behind one circuit breaker."""

    def __init__(self, *, budget_s: float) -> None:
        self._threads = ThreadLine(2, name="shopper-history")
        self._budget_s = budget_s
        self._breaker = Breaker("shopper-history")

    async def read(self, deadline: Deadline, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """What the work returns, done in a thread.

        Raises:
            HistoryUnavailable: the database failed, or did not answer in time.
        """
        left_s = deadline.left_s(self._budget_s, SHARE)
        if left_s <= 0 or not self._breaker.allows():
            raise HistoryUnavailable("the shopper's history is not asked for: no time is left, or the database is gone")
        asked_s = time.monotonic()
        try:
            found = await self._threads.run(partial(work, *arguments, **named), left_s)
        except (SQLAlchemyError, asyncio.TimeoutError) as error:
            deadline.in_vain_s += time.monotonic() - asked_s
            slow = isinstance(error, asyncio.TimeoutError)
            why = f"no answer within {left_s:.3f} s" if slow else words(error)
            if not slow or patient(left_s, self._budget_s):
                self._breaker.failed(why)
            raise HistoryUnavailable(f"the shopper's history cannot be read: {why}") from error
        self._breaker.succeeded()
        return found

    def close(self) -> None:
        """Ends the threads after the reads under way."""
        self._threads.close()
