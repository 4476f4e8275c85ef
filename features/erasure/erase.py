"""Erases a person everywhere: `python -m features delete-user USER_ID`, and the gateway's `DeleteUser`.

The tombstones come first; a writer looks at them in the transaction in which it writes, and a job (build, materialize,
stream, import) under the lock under which it publishes, so nothing that was read before comes back after. Each part is
tried even if another is gone; what failed is said, and the next call goes on with it. A job under way is not waited for
longer than `JOBS_WAIT_S`: it publishes nothing of the person, but its own working files go only when it ends.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa
from redis.exceptions import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from features import store
from features.database.engine import DatabaseError, open_database
from features.erasure import offline, postgresql_bytes, records, redis_bytes, sqlite_bytes
from features.erasure.records import Person
from features.erasure.tombstones import Tombstones
from features.locks import LockName, LockTaken, locked
from features.outage import words
from features.settings import Settings

JOBS_WAIT_S: Final = 15.0
_RETRY_S = 0.1


class ErasureIncomplete(DatabaseError):
    """Something of the person is left; the message says where. Erasing them again goes on with it."""


def erase(
    settings: Settings, *, user_id: str = "", session_id: str = "", note: Callable[[str], None] = lambda part: None
) -> None:
    """Erases a user with their sessions, or one session; done already, it changes nothing.

    Args:
        user_id, session_id: one of the two.
        note: told of each part when it begins.

    Raises:
        ErasureIncomplete: a part was not available.
        DatabaseError, SQLAlchemyError: the database does not answer; nothing is erased.
    """
    if bool(user_id) == bool(session_id):
        raise ValueError("give either user_id or session_id")
    left = _Left(note)
    engine = open_database(settings.log_url)
    try:
        with locked(settings, "erasure", engine=engine):
            cut_short = bool(records.uncleaned(engine))
            person = records.bury(engine, Tombstones(settings), user_id, session_id)
            with left.noting("the database"):
                records.delete_answers(engine, person)
                records.delete_attributes(engine, person)
                records.unlink_sessions(engine, person)
            with left.noting("the online store"):
                _erase_online(settings, engine, person)
            with left.noting("the offline files"):
                offline.rewrite_files(settings, person)
            if not left.parts:
                records.forget_sessions(engine, person)
            with left.noting("the database's files"):
                _clean_database(engine, person, whole=cut_short)
        _remove_working_files(settings, engine, left)
    finally:
        engine.dispose()
    if left.parts:
        raise ErasureIncomplete(f"not yet erased from {'; '.join(left.parts)}. Erase again, it goes on from there")


class _Left:
    """What could not be done."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.parts: list[str] = []
        self._note = note

    @contextmanager
    def noting(self, part: str) -> Iterator[None]:
        """Tells of the part, and notes its failure instead of ending there.

        Values of a statement stay out of the message.
        """
        self._note(part)
        try:
            yield
        except (DatabaseError, SQLAlchemyError, sqlite3.Error, RedisError, OSError, pa.ArrowException) as error:
            self.parts.append(f"{part} ({words(error)})")


def _erase_online(settings: Settings, engine: Engine, person: Person) -> None:
    with locked(settings, "online-rows", engine=engine), store.opened(settings) as feast:
        store.delete_shoppers(feast, person.keys)
    if settings.online_store == "redis":
        with store.redis_client(settings) as client:
            redis_bytes.clean(client)
    else:
        sqlite_bytes.clean(settings.home / "online.db", person.ids)


def _clean_database(engine: Engine, person: Person, *, whole: bool) -> None:
    if engine.dialect.name == "postgresql":
        postgresql_bytes.clean(engine)
        return
    tables = records.uncleaned(engine)
    sqlite_bytes.clean(Path(engine.url.database or ""), person.ids, whole=whole)
    records.note_cleaned(engine, tables)


def _remove_working_files(settings: Settings, engine: Engine, left: _Left) -> None:
    """Of jobs that were cut short, at once; of one under way, when it has ended."""
    folders: dict[LockName, str] = {
        "build": "offline/.building",
        "materialize": "materialize",
        "import": "imports/*/work-*",
    }
    deadline_s = time.monotonic() + JOBS_WAIT_S
    for job, pattern in folders.items():
        with left.noting(f"the working files of `features {job}`"):
            while True:
                try:
                    with locked(settings, job, engine=engine, wait=False):
                        for path in settings.home.glob(pattern):
                            shutil.rmtree(path, ignore_errors=True)
                    break
                except LockTaken:
                    if time.monotonic() > deadline_s:
                        raise DatabaseError("it is under way; wait for its end") from None
                    time.sleep(_RETRY_S)
