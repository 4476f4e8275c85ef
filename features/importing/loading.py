"""Record batches into the event log, fast: ADBC's bound statements on SQLite, COPY into a staging table on PostgreSQL.

An event whose id is in the log already is passed over, so an import that is run again changes nothing; so is one of a
person who was erased, which each batch looks up in its own transaction. Sessions are joined to who signs in as they are
for events that are appended (`features.log.sign_ins`), batch by batch.

SQLite's ADBC driver carries a SQLite of its own. Two of them in one process must not have the same file open (closing
one drops the other's locks), so the engine is disposed of first and the file opened again only afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import adbc_driver_postgresql.dbapi
import adbc_driver_sqlite.dbapi
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Engine, Table, text

from features.database.engine import create_indexes
from features.database.models import Event
from features.erasure.tombstones import HOLD_LOCK, KEY_CHECK, Tombstones
from features.log.event_log import WRITER_LOCK
from features.log.sign_ins import INDEX_PLANS, sign_in

_SQLITE_PRAGMAS = (
    "busy_timeout = 60000",
    "synchronous = NORMAL",  # an import that a power loss cuts short is run again
    "cache_size = -131072",
    "wal_autocheckpoint = 16384",
    "secure_delete = ON",
)
_LAST = "SELECT coalesce(max(position), 0) FROM events"


@dataclass(slots=True)
class Loaded:
    """What became of the events that were not in the log already."""

    new: int = 0
    erased: int = 0
    """Of persons who were erased: passed over."""


def load_events(
    engine: Engine,
    tombstones: Tombstones,
    batches: Iterable[pa.RecordBatch],
    written: Callable[[int], None],
    *,
    sessions_join: bool = False,
) -> Loaded:
    """Inserts batches, each in a transaction of its own.

    Args:
        batches: columns of the table `events` but `position`, all with the same columns.
        written: called after each batch with its rows.
        sessions_join: whether the batches hold a session that is anonymous in one event and a person's in another.

    Raises:
        ErasureKeyError: persons were erased under another key.
    """
    with ThreadPoolExecutor(1) as reader:
        ahead = _read_ahead(reader, iter(batches))
        if engine.dialect.name == "sqlite":
            return _into_sqlite(engine, tombstones, ahead, written, sessions_join)
        return _into_postgresql(engine, tombstones, ahead, written)


def _survivors(connection: Any, tombstones: Tombstones, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows of a batch whose shopper and session were not erased."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT shopper_hash FROM tombstones")
        hashes = {row[0] for row in cursor.fetchall()}
    if not hashes:
        return batch
    tombstones.load_with(_value(connection, f"SELECT value FROM counters WHERE name = '{KEY_CHECK}'"))

    def erased(column: str, prefix: str) -> Any:
        values = [value for value in pc.unique(batch[column]).to_pylist() if value is not None]
        theirs = [value for value in values if tombstones.hash_of(prefix + value) in hashes]
        return pc.is_in(batch[column], value_set=pa.array(theirs, batch[column].type))

    refused = erased("shopper", "")
    if "session_id" in batch.schema.names:
        refused = pc.or_(refused, erased("session_id", "s:"))
    return batch.filter(pc.invert(refused))


def _read_ahead(reader: Executor, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches, each made while the one before it is being written."""
    coming = reader.submit(next, batches, None)
    while (batch := coming.result()) is not None:
        coming = reader.submit(next, batches, None)
        yield batch


def _into_sqlite(
    engine: Engine,
    tombstones: Tombstones,
    batches: Iterable[pa.RecordBatch],
    written: Callable[[int], None],
    sessions_join: bool,
) -> Loaded:
    engine.dispose()
    loaded = Loaded()
    with adbc_driver_sqlite.dbapi.connect(str(engine.url.database), autocommit=True) as connection:
        for pragma in _SQLITE_PRAGMAS:
            _value(connection, f"PRAGMA {pragma}")
        first = not _value(connection, "SELECT EXISTS (SELECT 1 FROM events)")
        # Sorting all shoppers at once takes half the time of finding each event's place among them, but what a session
        # did is found by the index.
        indexed = not first or sessions_join
        if not indexed:
            for index in cast(Table, Event.__table__).indexes:
                _value(connection, f"DROP INDEX IF EXISTS {index.name}")
        for batch in batches:
            names = batch.schema.names
            statement = (
                f"INSERT INTO events ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) "
                "ON CONFLICT (event_id) DO NOTHING"
            )
            _value(connection, "BEGIN IMMEDIATE")
            kept = _survivors(connection, tombstones, batch)
            before = _value(connection, _LAST)
            changes = _value(connection, "SELECT total_changes()")
            with connection.cursor() as cursor:
                cursor.executemany(statement, kept)
            loaded.new += _value(connection, "SELECT total_changes()") - changes
            if "session_id" in names:
                sign_in(partial(_execute, connection), before, join=indexed)
            _value(connection, "COMMIT")
            loaded.erased += batch.num_rows - kept.num_rows
            written(batch.num_rows)
    with engine.begin() as connection:
        create_indexes(connection)
    with engine.connect() as checkpoint:
        checkpoint.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    return loaded


def _into_postgresql(
    engine: Engine, tombstones: Tombstones, batches: Iterable[pa.RecordBatch], written: Callable[[int], None]
) -> Loaded:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    loaded = Loaded()
    with adbc_driver_postgresql.dbapi.connect(url) as connection:
        for batch in batches:
            names = ", ".join(batch.schema.names)
            locks = f"pg_advisory_xact_lock({WRITER_LOCK}), pg_advisory_xact_lock_shared({HOLD_LOCK})"
            _value(connection, f"SELECT 1 FROM (SELECT {locks}, {INDEX_PLANS}) AS locked")
            kept = _survivors(connection, tombstones, batch)
            with connection.cursor() as cursor:
                cursor.adbc_ingest("import_staging", kept, mode="replace", temporary=True)
            before = _value(connection, _LAST)
            with connection.cursor() as cursor:
                cursor.execute(
                    f"INSERT INTO events ({names}) SELECT {names} FROM import_staging "
                    "ORDER BY event_time_ms, ctid ON CONFLICT (event_id) DO NOTHING"
                )
                loaded.new += cursor.rowcount
            if "session_id" in batch.schema.names:
                sign_in(partial(_execute, connection), before)
            connection.commit()
            loaded.erased += batch.num_rows - kept.num_rows
            written(batch.num_rows)
    return loaded


def _execute(connection: Any, statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def _value(connection: Any, statement: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        rows = cursor.fetchall()
    return int(rows[0][0]) if rows and isinstance(rows[0][0], int) else 0
