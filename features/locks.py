"""One writer at a time, or several that do not meet: a named lock among the processes of a shop.

SQLite shops stand on one machine and lock a file in `home`; PostgreSQL shops may stand on many and take an advisory
lock in the database. Both are let go of when the process that holds them dies.
"""

from __future__ import annotations

import fcntl
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.pool import NullPool

from features.database.server_url import sqlalchemy_url
from features.settings import Settings

LockName = Literal[
    "feature-store",
    "registry",
    "online-rows",
    "erasure",
    "stream",
    "build",
    "materialize",
    "import",
    "update",
    "publish",
    "searches",
]
"""feature-store: changes of the registry. registry, searches: the making of their tables. online-rows: rows of events
and profiles; stream workers share it, each for shoppers of its own. erasure: offline files and vectors, by the erasure
of a person and by the jobs while they publish. The others: the one such job."""

_FIRST_WAIT_S = 0.001
_LONGEST_WAIT_S = 0.1


class LockTaken(Exception):
    """Another process holds the lock."""


@contextmanager
def locked(
    settings: Settings, name: LockName, *, engine: Engine | None = None, wait: bool = True, shared: bool = False
) -> Iterator[None]:
    """Holds the lock `name`, alone or beside others that share it.

    Args:
        engine: saves a connection where the shop's database is PostgreSQL.

    Raises:
        LockTaken: `wait` is false and another process holds it.
    """
    if settings.log_url.startswith("postgresql"):
        with (
            (engine or own_engine(settings.log_url)).connect() as connection,
            advisory_lock(connection.execution_options(isolation_level="AUTOCOMMIT"), name, wait=wait, shared=shared),
        ):
            yield
    else:
        settings.home.mkdir(parents=True, exist_ok=True)
        with file_locked(settings.home / f"{name}.lock", wait=wait, shared=shared):
            yield


@contextmanager
def advisory_lock(connection: Connection, name: LockName, *, wait: bool = True, shared: bool = False) -> Iterator[None]:
    """`locked` on an autocommitting connection to PostgreSQL; the lock is gone when the connection is.

    Raises:
        LockTaken: `wait` is false and another process holds it.
    """
    key = {"key": zlib.crc32(f"braid {name}".encode())}
    kind = "_shared" if shared else ""
    if wait and name == "online-rows":  # held for moments by many: who does not stand in line may never get it
        connection.execute(text(f"SELECT pg_advisory_lock{kind}(:key)"), key)
    else:
        wait_s = _FIRST_WAIT_S
        # Who waits inside a statement holds on to all rows that are deleted meanwhile, and an erasure cannot end.
        while not connection.execute(text(f"SELECT pg_try_advisory_lock{kind}(:key)"), key).scalar_one():
            if not wait:
                raise LockTaken(name)
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
    try:
        yield
    finally:
        connection.execute(text(f"SELECT pg_advisory_unlock{kind}(:key)"), key)


def own_engine(url: str) -> Engine:
    """An engine whose connections, and with them their locks, end when they are closed."""
    return create_engine(sqlalchemy_url(url), poolclass=NullPool)


@contextmanager
def file_locked(path: Path, *, wait: bool = True, shared: bool = False) -> Iterator[None]:
    """Holds the lock of a file among the processes of this machine, alone or beside others that share it.

    Args:
        path: made if it is not there; its folder is.

    Raises:
        LockTaken: `wait` is false and another process holds it.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise LockTaken(path.stem) from None
        yield
