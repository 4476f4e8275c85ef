"""Takes events into the log by group commit: what arrives during a commit goes together into the next."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from features.database.engine import DatabaseError
from features.erasure.tombstones import Tombstones
from features.event_log import EventLog, NewEvent, Outcome
from server.coalescer import Coalescer
from server.deadline import Deadline
from server.errors import DeadlinePassed, Overloaded, Unavailable

LOG = logging.getLogger(__name__)

MAX_REQUESTS = 64
"""Requests in one commit."""


class EventWriter:
    """One writer thread a process; holds at most `max_events` that are not yet committed."""

    def __init__(self, engine: Engine, tombstones: Tombstones, *, max_events: int, budget_s: float) -> None:
        self._log = EventLog(engine, tombstones)
        self._max_events = max_events
        self._budget_s = budget_s
        self._held = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="event-log")
        self._pipe: Coalescer[Sequence[NewEvent], list[Outcome]] = Coalescer(self._commit, max_batch=MAX_REQUESTS)

    async def write(self, events: Sequence[NewEvent], deadline: Deadline) -> list[Outcome]:
        """Durable when it returns: what became of each event.

        Raises:
            Overloaded: too many events wait.
            DeadlinePassed: the caller's time is over; sending the same events again is safe.
            Unavailable: the log cannot be written.
        """
        if not events:
            return []
        if self._held + len(events) > self._max_events:
            raise Overloaded(
                f"{self._held} events wait for their commit, at most {self._max_events} may; send again later",
                retry_after_s=1.0,
            )
        self._held += len(events)
        try:
            return await self._pipe.submit(events, deadline.left_s(self._budget_s))
        except asyncio.TimeoutError:
            raise DeadlinePassed("the commit took longer than the deadline; send the same events again") from None
        except DatabaseError as error:  # it cannot tell who was erased
            raise Unavailable(str(error)) from error
        except SQLAlchemyError as error:
            LOG.error("the event log cannot be written: %s", error)
            raise Unavailable("the event log cannot be written now; send the same events again") from error
        finally:
            self._held -= len(events)

    def close(self) -> None:
        """Ends the thread after the commit under way."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _commit(self, requests: Sequence[Sequence[NewEvent]]) -> list[list[Outcome]]:
        events = [event for request in requests for event in request]
        now_ms = time.time_ns() // 1_000_000
        stored = await asyncio.get_running_loop().run_in_executor(self._thread, self._log.append, events, now_ms)
        answers, start = [], 0
        for request in requests:
            answers.append(stored[start : start + len(request)])
            start += len(request)
        return answers
