"""What is known of a person: age, gender, country and free attributes, all optional."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

import polars as pl
from sqlalchemy import Engine, select

from features.database.engine import upsert
from features.database.models import User
from features.erasure.tombstones import Tombstones, erased_by, hold

USER_COLUMNS: Final[dict[str, pl.DataType]] = {
    "user_id": pl.String(),
    "age": pl.Int32(),
    "gender": pl.String(),
    "country": pl.String(),
    "updated_time_ms": pl.Int64(),
}
_ROWS_A_QUERY = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class UserProfile:
    """A person's attributes. `updated_time_ms` is set by `Users.upsert`."""

    user_id: str
    age: int | None = None
    gender: str | None = None
    country: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    updated_time_ms: int = 0


class ErasedUsers(Exception):
    """Some of the users were erased; nothing was stored. A person who registers again needs a new id."""

    def __init__(self, user_ids: set[str]) -> None:
        super().__init__(f"{len(user_ids)} of the users were erased; register them under new ids")
        self.user_ids = user_ids


class Users:
    """The table `users`.

    Args:
        tombstones: who was erased, for `upsert`; readers need none.
    """

    def __init__(self, engine: Engine, tombstones: Tombstones | None = None) -> None:
        self._engine = engine
        self._tombstones = tombstones

    def upsert(
        self, users: Sequence[UserProfile], updated_time_ms: int | None = None, fields: Sequence[str] | None = None
    ) -> None:
        """Inserts or overwrites profiles in one transaction; the last of two with one id holds.

        Args:
            updated_time_ms: when the attributes were true; now if not given.
            fields: what to overwrite of profiles that exist (all if not given).

        Raises:
            ErasedUsers: some were erased.
            DatabaseError: persons were erased, and this object cannot tell who.
        """
        moment = int(time.time() * 1000) if updated_time_ms is None else updated_time_ms
        # Sorted, so that two writers take the rows' locks in one order.
        rows = {user.user_id: asdict(user) | {"updated_time_ms": moment} for user in users}
        with self._engine.begin() as connection:
            hold(connection)
            if erased := erased_by(self._tombstones, connection, [f"u:{user_id}" for user_id in rows]):
                raise ErasedUsers({key[2:] for key in erased})
            columns = [*fields, "updated_time_ms"] if fields is not None else None
            upsert(connection, User, [rows[key] for key in sorted(rows)], key=["user_id"], columns=columns)

    def get(self, user_id: str) -> UserProfile | None:
        """One profile, or None."""
        return self.of([user_id]).get(user_id)

    def of(self, user_ids: Sequence[str]) -> dict[str, UserProfile]:
        """The profiles of those who have one, by id."""
        found = {}
        with self._engine.connect() as connection:
            for start in range(0, len(user_ids), _ROWS_A_QUERY):
                ids = user_ids[start : start + _ROWS_A_QUERY]
                for row in connection.execute(select(User.__table__).where(User.user_id.in_(ids))):
                    found[row.user_id] = UserProfile(**row._mapping)
        return found

    def erased(self, user_ids: Sequence[str]) -> set[str]:
        """Those who were erased by now."""
        if self._tombstones is None:
            return set()
        with self._engine.connect() as connection:
            return {key[2:] for key in self._tombstones.erased(connection, [f"u:{user_id}" for user_id in user_ids])}

    def frame(self) -> pl.DataFrame:
        """Every profile, by id; columns `USER_COLUMNS`, and `device`, the free attribute of that name."""
        columns = [User.__table__.c[name] for name in USER_COLUMNS]
        statement = select(*columns, User.attributes["device"].as_string()).order_by(User.user_id)
        with self._engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(statement)]
        return pl.DataFrame(rows, schema=USER_COLUMNS | {"device": pl.String()}, orient="row")
