"""One writer at a time: a named lock among the processes of a shop.

SQLite shops stand on one machine and lock a file in `home`; PostgreSQL shops may stand on many and take an advisory
lock in the database. Both are let go of when the process that holds them dies.
"""

from __future__ import annotations

import fcntl
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from features.settings import Settings

LockName = Literal["feature-store", "online-rows", "erasure", "stream", "build", "materialize", "import"]
"""feature-store: changes of the registry. online-rows: rows of events and profiles. erasure: offline files and vectors,
by the erasure of a person and by the jobs while they publish. The others: the one such job."""


_FIRST_WAIT_S = 0.001
_LONGEST_WAIT_S = 0.1


class LockTaken(Exception):
    """Another process holds the lock."""


@contextmanager
def locked(settings: Settings, name: LockName, *, engine: Engine | None = None, wait: bool = True) -> Iterator[None]:
    """Holds the lock `name`; `engine` saves a connection where the shop's database is PostgreSQL.

    Raises:
        LockTaken: `wait` is false and another process holds it.
    """
    if settings.log_url.startswith("postgresql"):
        with _advisory_lock(engine or _own_engine(settings.log_url), name, wait):
            yield
    else:
        with _file_lock(settings, name, wait):
            yield


@contextmanager
def _file_lock(settings: Settings, name: LockName, wait: bool) -> Iterator[None]:
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise LockTaken(name) from None
        yield


@contextmanager
def _advisory_lock(engine: Engine, name: LockName, wait: bool) -> Iterator[None]:
    key = {"key": zlib.crc32(f"braid {name}".encode())}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        wait_s = _FIRST_WAIT_S
        # Not `pg_advisory_lock`: who waits inside a statement holds on to all rows that are deleted meanwhile.
        while not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), key).scalar_one():
            if not wait:
                raise LockTaken(name)
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)


def _own_engine(url: str) -> Engine:
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
