"""Keeps the online rows current: `python -m features stream` follows the log and the users until SIGTERM.

Every few milliseconds it takes what is new in the log, reads the whole rows of the touched shoppers from the log and
writes them: a row that is written twice is the same row, so a restart repeats the last moments and loses nothing.
`home/stream.json` tells how far it has come.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from typing import Any, Final

import polars as pl
from sqlalchemy import tuple_

from features import store
from features.counters import advance_counter, read_counter
from features.database.engine import open_database
from features.database.models import User
from features.event_log import EventLog
from features.locks import LockTaken, locked
from features.online import STREAM_COUNTER, USERS_COUNTER, read_users
from features.rows import profile_rows, purchase_rows, recent_rows
from features.schema import RECENT_EVENTS, SEQUENCE_TYPES, EventType
from features.settings import Settings

POLL_S: Final = 0.01
BATCH_EVENTS: Final = 2_000
BATCH_USERS: Final = 1_000
USERS_POLL_S: Final = 0.1
USERS_OVERLAP_MS: Final = 10_000
"""A profile may become visible this much later than the time it carries (a slow commit, another machine's clock)."""
PERSIST_S: Final = 0.25
"""A durable position costs the log's database a flush; what lies between is repeated after a crash."""
HEARTBEAT_S: Final = 1.0
FIRST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 5.0

HEARTBEAT_FILE: Final = "stream.json"

logger = logging.getLogger(__name__)


def run(settings: Settings, stop: threading.Event) -> None:
    """Follows until `stop` is set. A second worker waits for the first to end.

    An error of the database or the online store is logged once and tried again, up to `LONGEST_WAIT_S` apart.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    waiting = False
    while not stop.is_set():
        try:
            with locked(settings, "stream", wait=False):
                _follow(settings, stop)
        except LockTaken:
            if not waiting:
                logger.info("another stream worker serves this shop; waiting for it to end")
                waiting = True
            stop.wait(0.5)


class Follower:
    """One worker's place in the log and among the users."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine = open_database(settings.log_url)
        self._log = EventLog(self._engine)
        self._store = store.open_store(settings)
        self.position = read_counter(self._engine, STREAM_COUNTER)
        self._users_through_ms = read_counter(self._engine, USERS_COUNTER)
        self._users_after = (self._users_through_ms - USERS_OVERLAP_MS, "")
        self._overlap_read_ms = 0
        self._profiles: dict[str, tuple[Any, ...]] = {}  # what was written of the overlap, by user_id
        self._persisted = (self.position, self._users_through_ms)

    def follow_log(self) -> int:
        """Writes the rows of the shoppers in the next `BATCH_EVENTS` events; returns how many events there were."""
        if self._log.last_position() <= self.position:
            return 0
        with locked(self._settings, "online-rows", engine=self._engine):
            # `features build` writes rows too, and then moves the counter.
            self.position = max(self.position, read_counter(self._engine, STREAM_COUNTER))
            events = self._log.read_after(self.position, BATCH_EVENTS)
            if events.is_empty():
                return 0
            kind = pl.col("event_type")
            acted = events.filter(kind.is_in([int(known) for known in SEQUENCE_TYPES]))["shopper"].unique().to_list()
            bought = events.filter(kind == int(EventType.PURCHASE))["shopper"].unique().to_list()
            if acted:
                store.write_recent(self._store, recent_rows(self._log.recent_of(acted, RECENT_EVENTS)))
            if bought:
                store.write_purchases(self._store, purchase_rows(self._log.purchases_of(bought)))
            self.position = events["position"][-1]
        return events.height

    def follow_users(self) -> int:
        """Writes the profiles among the next `BATCH_USERS` changes; returns how many it wrote."""
        time_ms, user_id = self._users_after
        condition = tuple_(User.updated_time_ms, User.user_id) > tuple_(time_ms, user_id)
        with locked(self._settings, "online-rows", engine=self._engine):
            users = read_users(self._engine, condition, [User.updated_time_ms, User.user_id], BATCH_USERS)
            found = {row[0]: row for row in users.rows()}
            changed = [key for key, row in found.items() if self._profiles.get(key) != row]
            if changed:
                store.write_profiles(self._store, profile_rows(users.filter(pl.col("user_id").is_in(changed))))
        self._profiles |= found
        if users.height:
            newest_ms = min(users["updated_time_ms"][-1], int(time.time() * 1000))
            self._users_through_ms = max(self._users_through_ms, newest_ms)
        if users.height == BATCH_USERS:
            self._users_after = (users["updated_time_ms"][-1], users["user_id"][-1])
        else:
            self._end_of_users(users)
        return len(changed)

    def _end_of_users(self, users: pl.DataFrame) -> None:
        """Goes back over the overlap, until one reading began so late that nothing can still turn up in it."""
        if self._overlap_read_ms - self._users_through_ms < USERS_OVERLAP_MS:
            self._overlap_read_ms = int(time.time() * 1000)
            since_ms = self._users_through_ms - USERS_OVERLAP_MS
            self._users_after = (since_ms, "")
            self._profiles = {key: row for key, row in self._profiles.items() if row[-1] >= since_ms}
        elif users.height:
            self._users_after = (users["updated_time_ms"][-1], users["user_id"][-1])
            self._profiles = {}

    def persist(self) -> None:
        """Makes the place durable."""
        place = (self.position, self._users_through_ms)
        if place != self._persisted:
            advance_counter(self._engine, STREAM_COUNTER, place[0])
            advance_counter(self._engine, USERS_COUNTER, place[1])
            self._persisted = place

    def write_heartbeat(self) -> None:
        """Writes `home/stream.json`: process, position, events still to do, and when."""
        beat = {
            "pid": os.getpid(),
            "position": self.position,
            "behind": self._log.last_position() - self.position,
            "time_ms": int(time.time() * 1000),
        }
        path = self._settings.home / HEARTBEAT_FILE
        path.with_suffix(".new").write_text(json.dumps(beat))
        path.with_suffix(".new").replace(path)

    def close(self) -> None:
        """Lets go of the database and the store."""
        store.close(self._store)
        self._engine.dispose()


def _follow(settings: Settings, stop: threading.Event) -> None:
    """Follows with the lock held, opening everything again after an error."""
    failure, wait_s = "", FIRST_WAIT_S
    while not stop.is_set():
        started_s = time.monotonic()
        try:
            store.apply(settings)
            _follow_until_error(settings, stop)
        except Exception as error:  # whatever a database or store raises: the worker outlives it
            if time.monotonic() - started_s > 2 * LONGEST_WAIT_S:
                failure, wait_s = "", FIRST_WAIT_S
            if type(error).__name__ != failure:
                failure = type(error).__name__
                logger.error("cannot follow the log, trying again: %s: %s", failure, error)
            stop.wait(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
    logger.info("stopped")


def _follow_until_error(settings: Settings, stop: threading.Event) -> None:
    follower = Follower(settings)
    logger.info("following the log from position %d", follower.position)
    users_s = persist_s = heartbeat_s = 0.0
    try:
        while not stop.is_set():
            events = follower.follow_log()
            now_s = time.monotonic()
            if now_s - users_s >= USERS_POLL_S:
                follower.follow_users()
                users_s = now_s
            if now_s - persist_s >= PERSIST_S:
                follower.persist()
                persist_s = now_s
            if now_s - heartbeat_s >= HEARTBEAT_S:
                follower.write_heartbeat()
                heartbeat_s = now_s
            if not events:
                stop.wait(POLL_S)
        follower.persist()
        follower.write_heartbeat()
    finally:
        follower.close()
