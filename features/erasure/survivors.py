"""Who was not erased since a job read the log: what the job publishes is filtered by it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import polars as pl
from sqlalchemy import Engine

from features.erasure.offline import rewrite
from features.erasure.records import Person
from features.erasure.tombstones import Tombstones, count
from features.settings import Settings


class Survivors:
    """Made before the log is read; asked under a lock that the erasure takes too (`erasure` or `online-rows`)."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._tombstones = Tombstones(settings)
        self._engine = engine
        self._erased_before = count(engine)

    def among(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of those, by column `shopper`, who were not erased."""
        erased = self._erased(rows["shopper"])
        return rows.filter(~pl.col("shopper").is_in(erased)) if erased else rows

    def rewrite(self, folder: Path) -> None:
        """Rewrites the files that a build made, without those who were erased meanwhile."""
        if count(self._engine) == self._erased_before:
            return
        events = pl.scan_parquet(folder / "events.parquet")
        shoppers = events.select(pl.col("shopper").unique()).collect()["shopper"]
        sessions = events.select(pl.format("s:{}", pl.col("session_id").drop_nulls().unique())).collect().to_series()
        users = pl.read_parquet(folder / "users.parquet", columns=["shopper"])["shopper"]
        erased = self._erased({*shoppers, *sessions, *users})
        for person in _people(erased):
            for path in folder.glob("*.parquet"):
                rewrite(path, person)

    def _erased(self, keys: Iterable[str]) -> set[str]:
        if count(self._engine) == self._erased_before:
            return set()
        with self._engine.connect() as connection:
            return self._tombstones.erased(connection, keys)


def _people(keys: set[str]) -> list[Person]:
    """One for each user among the keys, and one for all sessions."""
    sessions = tuple(sorted(key[2:] for key in keys if key.startswith("s:")))
    users = [Person(user_id=key[2:], sessions=()) for key in sorted(keys) if key.startswith("u:")]
    return [*users, *([Person(user_id="", sessions=sessions)] if sessions else [])]
