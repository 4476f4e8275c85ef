"""Takes events into the log by group commit: what arrives during a commit goes together into the next."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Engine
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from features.database.engine import DatabaseError
from features.erasure.tombstones import Tombstones
from features.log.event_log import EventLog, NewEvent, Outcome
from features.outage import Outage, words
from server.deadline import Deadline
from server.errors import DeadlinePassed, Overloaded, Unavailable
from server.infer.coalescer import Coalescer

LOG = logging.getLogger(__name__)

MAX_REQUESTS = 64
"""Requests in one commit."""

BAD_DATA = (DataError, IntegrityError, ValueError, OverflowError)
"""What a database or its driver raises where the fault is the event's: sent again, it is refused again."""


class EventWriter:
    """One writer thread a process; holds at most `max_events` that are not yet committed, or one request's."""

    def __init__(self, engine: Engine, tombstones: Tombstones, *, max_events: int, budget_s: float) -> None:
        self._log = EventLog(engine, tombstones)
        self._max_events = max_events
        self._budget_s = budget_s
        self._held = 0
        self._freed = asyncio.Event()
        self._outage = Outage(LOG, "the event log cannot be written", "the event log is written again")
        self._arrival_ms = 0
        self._refused = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="event-log")
        self._pipe: Coalescer[Sequence[NewEvent], list[Outcome]] = Coalescer(
            self._commit, line="event-log", max_batch=MAX_REQUESTS
        )

    async def write(self, events: Sequence[NewEvent], deadline: Deadline) -> list[Outcome]:
        """Durable when it returns: what became of each event.

        Raises:
            Overloaded: too many events wait.
            DeadlinePassed: the caller's time is over; sending the same events again is safe.
            Unavailable: the log cannot be written.
        """
        if not self._fits(len(events)):
            raise Overloaded(
                f"{self._held} events wait for their commit, at most {self._max_events} may; send again later",
                retry_after_s=1.0,
            )
        return await self.finish(self.begin(events), deadline)

    async def room(self, count: int) -> None:
        """Waits until `begin` may take `count` events more."""
        while not self._fits(count):
            self._freed.clear()
            await self._freed.wait()

    def begin(self, events: Sequence[NewEvent]) -> asyncio.Future[list[Outcome]]:
        """Puts events in line for the next commit; `finish` waits for it. Cancelled, they leave the line."""
        commit = self._pipe.send(events)
        self._held += len(events)
        commit.add_done_callback(lambda _: self._release(len(events)))
        return commit

    async def finish(self, commit: asyncio.Future[list[Outcome]], deadline: Deadline) -> list[Outcome]:
        """The outcomes of what `begin` put in line; raises what `write` does, but `Overloaded`."""
        left_s = deadline.left_s(self._budget_s)
        try:
            return await asyncio.wait_for(commit, left_s)
        except asyncio.TimeoutError:
            if left_s < self._budget_s:
                raise DeadlinePassed("the commit took longer than the deadline; send the same events again") from None
            why = f"no commit within {self._budget_s:g} s"
            self._outage.begins(f"{why}: the database is locked or slow")
            raise Unavailable(f"{why}; send the same events again") from None
        except DatabaseError as error:  # it cannot tell who was erased
            raise Unavailable(str(error)) from error
        except SQLAlchemyError as error:
            raise Unavailable("the event log cannot be written now; send the same events again") from error

    def close(self) -> None:
        """Ends the thread after the commit under way."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _fits(self, count: int) -> bool:
        """Whether so many events may wait as well; where none do, any request's: it would be refused for ever."""
        return not self._held or self._held + count <= self._max_events

    def _release(self, count: int) -> None:
        self._held -= count
        self._freed.set()

    async def _commit(self, requests: Sequence[Sequence[NewEvent]]) -> list[list[Outcome]]:
        events = [event for request in requests for event in request]
        arrival_ms = self._now_ms()
        try:
            outcomes = await asyncio.get_running_loop().run_in_executor(self._thread, self._store, events, arrival_ms)
        except SQLAlchemyError as error:
            self._outage.begins(words(error))
            raise
        self._outage.ends()
        answers, start = [], 0
        for request in requests:
            answers.append(outcomes[start : start + len(request)])
            start += len(request)
        return answers

    def _store(self, events: Sequence[NewEvent], arrival_ms: int) -> list[Outcome]:
        """Appends in one commit; what the database refuses for its data is halved until the culprit stands alone."""
        try:
            return self._log.append(events, arrival_ms)
        except BAD_DATA as error:
            if len(events) > 1:
                half = len(events) // 2
                return self._store(events[:half], arrival_ms) + self._store(events[half:], arrival_ms)
            if not self._refused:
                LOG.warning("the database refused an event, its sender is told; more are not logged: %s", type(error))
            self._refused = True
            return [Outcome.REFUSED]

    def _now_ms(self) -> int:
        now_ms = time.time_ns() // 1_000_000
        if now_ms < self._arrival_ms - 1_000:
            back_s = (self._arrival_ms - now_ms) / 1_000
            LOG.warning("the clock stepped back by %.1f s; arrival times follow it, the log's order does not", back_s)
        self._arrival_ms = now_ms
        return now_ms
