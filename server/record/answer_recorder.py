"""Remembers answers off the request's path: a bounded queue, a thread of its own, a transaction every moment.

An answer that finds the queue full, by answers or by bytes, or the database failing, is dropped and counted: no request
waits for this or fails by it. Answers older than the retention are deleted by the same thread, a few at a time.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Collection
from threading import Event, Thread
from typing import Any, Literal

from sqlalchemy import Connection, Engine

from features.answers.answers import DELETED_AT_ONCE, NewAnswer, answer_row, append_answers, delete_answers_before
from features.erasure.tombstones import Tombstones
from server.metrics import ANSWERS_DROPPED, ANSWERS_RECORDED

LOG = logging.getLogger(__name__)

POLL_S = 0.05
COMMIT_S = 0.25
"""An answer waits about this long for the others of its transaction."""
MAX_ROWS = 500
"""Answers in one transaction: as long as it takes, SQLite makes the event log's writer wait."""
MOST_BYTES = 64 << 20
"""Of what can be long in answers that are not written yet: the filter, the items to rank, the events sent along."""
_EVENT_BYTES = 512
_TEXT_BYTES = 64
"""Beside its characters."""
BUSY_S = 5
"""How long another writer may hold SQLite's lock; the queue takes answers meanwhile."""
DRAIN_S = 2 * BUSY_S
PRUNE_S = 60.0
"""Between two looks for answers that are too old, once there are none."""
_DAY_MS = 86_400_000


class AnswerRecorder:
    """One thread a process, from its making until `close`."""

    def __init__(self, engine: Engine, tombstones: Tombstones, *, max_answers: int, retention_days: float) -> None:
        self._engine = engine
        self._tombstones = tombstones
        self._retention_ms = retention_days * _DAY_MS
        self._max_answers = max_answers
        self._waiting: deque[tuple[NewAnswer, int]] = deque()  # each with its bytes
        self._unwritten: deque[NewAnswer] = deque()  # in the order of `_waiting`, until the database has them
        self._taken = self._settled = 0  # answers taken from the requests; of them, written or dropped by the thread
        self._taken_bytes = self._settled_bytes = 0
        self._ending = Event()
        self._dropped = 0  # of this outage
        self._connection: Connection | None = None
        self._thread = Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    def record(self, answer: NewAnswer) -> None:
        """Takes an answer, or drops it; returns at once, without waking the thread."""
        if self._has_room():
            size = _long_bytes(answer)
            self._taken += 1
            self._taken_bytes += size
            self._unwritten.append(answer)
            self._waiting.append((answer, size))
            self._forget_settled()
        else:
            self._drop(1, "queue", "too many wait for the database")

    def unwritten_item_ids(self, shoppers: Collection[str], session_id: str, since_ms: int) -> set[str]:
        """Items of answers to one of the shoppers or in the session that the database does not have yet.

        Ask before the database: what is written in between is then found twice, and not missed.
        """
        self._forget_settled()
        return {
            item_id
            for answer in self._unwritten
            if answer.query.now_ms >= since_ms
            and (answer.shopper in shoppers or (session_id and answer.query.session_id == session_id))
            for item_id in answer.item_ids
        }

    def close(self) -> None:
        """Writes what waits, for at most `DRAIN_S`, and ends the thread."""
        self._ending.set()
        self._thread.join(DRAIN_S)

    def _forget_settled(self) -> None:
        while len(self._unwritten) > self._taken - self._settled:
            self._unwritten.popleft()

    def _has_room(self, share: float = 1.0) -> bool:
        """Whether less waits than this share of what may."""
        not_written = self._taken_bytes - self._settled_bytes
        return len(self._waiting) < share * self._max_answers and not_written < share * MOST_BYTES

    def _run(self) -> None:
        rows: list[dict[str, Any] | None] = []
        size = 0
        commit_s = prune_s = time.monotonic()
        while rows or self._waiting or not self._ending.is_set():
            while self._waiting and len(rows) < MAX_ROWS:
                answer, answer_bytes = self._waiting.popleft()
                rows.append(self._row(answer))  # the costly part, soon after the request
                size += answer_bytes
            now_s = time.monotonic()
            if rows and (now_s - commit_s >= COMMIT_S or len(rows) >= MAX_ROWS or self._ending.is_set()):
                self._write(rows, size)
                rows, size, commit_s = [], 0, time.monotonic()
            if now_s >= prune_s:
                prune_s = now_s + (COMMIT_S if self._prune() else PRUNE_S)
            if not self._waiting:
                self._ending.wait(POLL_S)
        self._disconnect()

    def _row(self, answer: NewAnswer) -> dict[str, Any] | None:
        """What is written of an answer; None where that cannot be made, which costs the others nothing."""
        try:
            return answer_row(answer)
        except Exception as error:
            self._drop(1, "database", repr(error))
            return None

    def _write(self, answers: list[dict[str, Any] | None], size: int) -> None:
        """Writes what was made of answers of `size` bytes, in the order in which they were taken."""
        rows = [row for row in answers if row is not None]
        try:
            with self._connected().begin():
                append_answers(self._connected(), self._tombstones, rows)
        except Exception as error:  # whatever a database raises: the thread outlives it
            self._disconnect()
            self._drop(len(rows), "database", repr(error))
            return
        finally:
            self._settled += len(answers)
            self._settled_bytes += size
        ANSWERS_RECORDED.inc(len(rows))
        if self._dropped and self._has_room(0.5):
            LOG.info("answers are recorded again; %d were not", self._dropped)
            self._dropped = 0

    def _prune(self) -> bool:
        """Deletes some answers past the retention; whether there may be more."""
        try:
            with self._connected().begin():
                before_ms = int(time.time() * 1000 - self._retention_ms)
                return delete_answers_before(self._connected(), before_ms) == DELETED_AT_ONCE
        except Exception as error:
            self._disconnect()
            LOG.debug("old answers cannot be deleted now: %r", error)
            return False

    def _drop(self, count: int, reason: Literal["queue", "database"], why: str) -> None:
        ANSWERS_DROPPED.labels(reason).inc(count)
        if not self._dropped:
            LOG.warning("answers are not recorded until the database takes them again: %s", why)
        self._dropped += count

    def _connected(self) -> Connection:
        """A connection of this thread's own, that waits less and flushes less than the event log's."""
        if self._connection is None:
            self._connection = self._engine.connect()
            self._connection.detach()
            on_sqlite = self._connection.dialect.name == "sqlite"
            for statement in (
                (f"PRAGMA busy_timeout={1000 * BUSY_S}", "PRAGMA synchronous=NORMAL")
                if on_sqlite
                else ("SET synchronous_commit = off", f"SET lock_timeout = '{BUSY_S}s'")
            ):
                self._connection.exec_driver_sql(statement)
            self._connection.commit()
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _long_bytes(answer: NewAnswer) -> int:
    """About what the parts of an answer take that callers can make long."""
    size = _EVENT_BYTES * len(answer.query.recent_events)
    for option in answer.options.values():
        for texts in option.values() if isinstance(option, dict) else (option,):
            if isinstance(texts, (list, tuple)):
                size += sum(map(len, texts)) + _TEXT_BYTES * len(texts)
    return size
