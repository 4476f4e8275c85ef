"""A stream worker's place among the users: the online profiles follow their changes."""

from __future__ import annotations

import time
from typing import Any, Final

import polars as pl
from sqlalchemy import ColumnElement, Engine, bindparam, select, tuple_

from features import store
from features.database.counters import advance_counter, read_counter
from features.database.models import User
from features.online.current_rows import USERS_COUNTER, read_users
from features.online.rows import profile_rows
from features.stream.shares import DividedShares, SoleShares

BATCH_USERS: Final = 1_000
USERS_OVERLAP_MS: Final = 10_000
"""A profile may become visible this much later than the time it carries (a slow commit, another machine's clock)."""


def _after(time_ms: Any, user_id: Any) -> ColumnElement[bool]:
    """Changes beyond a place."""
    return tuple_(User.updated_time_ms, User.user_id) > tuple_(time_ms, user_id)


_ANY_AFTER: Final = select(User.user_id).where(_after(bindparam("time_ms"), bindparam("user_id"))).limit(1)
"""Made once: it is asked ten times a second."""


class ProfileFollower:
    """Follows the table `users`; one worker of a shop does."""

    def __init__(self, engine: Engine, feast: store.FeatureStore, shares: SoleShares | DividedShares) -> None:
        self._engine = engine
        self._store = feast
        self._shares = shares
        self._through_ms = read_counter(engine, USERS_COUNTER)
        self._saved_ms = self._through_ms
        self._after = (self._through_ms - USERS_OVERLAP_MS, "")
        self._overlap_read_ms = 0
        self._written: dict[str, tuple[Any, ...]] = {}  # of the overlap, by user_id

    def follow(self) -> int:
        """Writes the profiles among the next `BATCH_USERS` changes; returns how many it wrote."""
        if self._settled and not self._any():
            return 0
        condition = _after(*self._after)
        with self._shares.writing():
            users = read_users(self._engine, condition, [User.updated_time_ms, User.user_id], BATCH_USERS)
            found = {row[0]: row for row in users.rows()}
            changed = [key for key, row in found.items() if self._written.get(key) != row]
            if changed:
                store.write_profiles(self._store, profile_rows(users.filter(pl.col("user_id").is_in(changed))))
        self._written |= found
        if users.height:
            newest_ms = min(users["updated_time_ms"][-1], int(time.time() * 1000))
            self._through_ms = max(self._through_ms, newest_ms)
        if users.height == BATCH_USERS:
            self._after = (users["updated_time_ms"][-1], users["user_id"][-1])
        else:
            self._end(users)
        return len(changed)

    def save(self) -> None:
        """Makes the place durable."""
        if self._through_ms != self._saved_ms:
            advance_counter(self._engine, USERS_COUNTER, self._through_ms)
            self._saved_ms = self._through_ms

    @property
    def _settled(self) -> bool:
        """Whether the overlap was read so late that nothing can still turn up in it."""
        return self._overlap_read_ms - self._through_ms >= USERS_OVERLAP_MS

    def _any(self) -> bool:
        time_ms, user_id = self._after
        with self._engine.connect() as connection:
            return connection.scalar(_ANY_AFTER, {"time_ms": time_ms, "user_id": user_id}) is not None

    def _end(self, users: pl.DataFrame) -> None:
        """Goes back over the overlap until that is settled."""
        if not self._settled:
            self._overlap_read_ms = int(time.time() * 1000)
            since_ms = self._through_ms - USERS_OVERLAP_MS
            self._after = (since_ms, "")
            self._written = {key: row for key, row in self._written.items() if row[-1] >= since_ms}
        elif users.height:
            self._after = (users["updated_time_ms"][-1], users["user_id"][-1])
            self._written = {}
