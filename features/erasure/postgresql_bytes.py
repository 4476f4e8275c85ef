"""The bytes of deleted rows in PostgreSQL: tables with deletions are written anew, and so are the statistics.

A plain VACUUM gives a deleted row's place free and leaves its bytes there; VACUUM FULL writes table and indexes anew
and lets nobody into the table meanwhile. ANALYZE then replaces the statistics, which quote values of the columns.
"""

from __future__ import annotations

import time
from typing import Final

from sqlalchemy import Connection, Engine, text

from features.database.engine import DatabaseError
from features.erasure.records import note_cleaned, uncleaned

WAIT_S: Final = 30
"""For transactions that still see the deleted rows, and for the lock on a table."""
_RETRY_S = 0.1

# A transaction that began before ours may see what was deleted; VACUUM FULL would copy it.
_OLDER = """
SELECT pid FROM pg_stat_activity
WHERE (datname = current_database() OR datname IS NULL) AND pid <> pg_backend_pid()
  AND (age(backend_xmin) >= age(CAST(:ours AS xid)) OR age(backend_xid) >= age(CAST(:ours AS xid)))"""
_OWNER = "SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database()"


def clean(engine: Engine) -> None:
    """Writes anew what had deletions since it was last done.

    Raises:
        DatabaseError: an old transaction stays open for longer than `WAIT_S`, or the role may not write the
            statistics anew.
        sqlalchemy.exc.SQLAlchemyError: a table is locked for longer than `WAIT_S`, or the disk is full.
    """
    tables = uncleaned(engine)
    if not tables:
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if not connection.scalar(text(_OWNER)):
            raise DatabaseError(
                "the role must own the database to write its statistics anew (VACUUM FULL pg_statistic)"
            )
        _wait_for_older(connection)
        connection.execute(text(f"SET lock_timeout = '{WAIT_S}s'"))
        connection.execute(text("SET maintenance_work_mem = '256MB'"))  # the indexes are sorted anew
        try:
            for name in tables:
                connection.execute(text(f"VACUUM (FULL, ANALYZE) {name}"))
            connection.execute(text("VACUUM FULL pg_statistic"))
        finally:
            connection.execute(text("RESET ALL"))
    note_cleaned(engine, tables)


def _wait_for_older(connection: Connection) -> None:
    ours = connection.scalar(text("SELECT CAST(CAST(pg_current_xact_id() AS xid) AS text)"))
    deadline_s = time.monotonic() + WAIT_S
    while pids := list(connection.scalars(text(_OLDER), {"ours": ours})):
        if time.monotonic() > deadline_s:
            raise DatabaseError(
                f"PostgreSQL's process {pids[0]} keeps a transaction open that sees deleted rows; end it"
            )
        time.sleep(_RETRY_S)
