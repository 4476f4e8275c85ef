"""Opens the database: SQLite in WAL mode, or PostgreSQL by URL, migrated to this version's tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, Table, create_engine, event, exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase

from features.database.models import Event
from features.database.server_url import sqlalchemy_url, without_secrets
from features.outage import words

MIGRATIONS = Path(__file__).parent / "migrations"


class DatabaseError(Exception):
    """The database cannot be used; the message says what to do."""


def open_database(url: str, *, pre_ping: bool = True) -> Engine:
    """An engine on a migrated database.

    SQLite: WAL, `synchronous=FULL` (an acknowledged event survives a power loss), secure deletion, 30 s busy wait.
    Errors do not show a statement's parameters: they are people's.

    Args:
        pre_ping: asks a server whether a connection still stands each time before it is used; who opens everything
            anew after an error does without.

    Raises:
        DatabaseError: the URL cannot be read, or the database does not answer or may not be written to.
    """
    try:
        asks = pre_ping and not url.startswith("sqlite")
        engine = create_engine(sqlalchemy_url(url), pool_pre_ping=asks, hide_parameters=True)
    except (exc.ArgumentError, ImportError, ValueError):  # ValueError: of the port
        raise DatabaseError(
            "BRAID_DATABASE_URL cannot be read; examples: postgresql://user@host:5432/name, sqlite:////srv/braid/braid.db"
        ) from None
    if engine.dialect.name == "sqlite":
        _make_folder(engine)
        event.listen(engine, "connect", _prepare_sqlite)
    try:
        migrate(engine)
    except exc.DatabaseError as error:
        engine.dispose()
        raise DatabaseError(
            f"BRAID_DATABASE_URL: {without_secrets(url)} cannot be opened: {words(error)}; see that "
            "it is there, may be written to and has room, or name another; without a name it is in BRAID_HOME"
        ) from error
    return engine


def migrate(engine: Engine) -> None:
    """Brings the tables to this version's, in one transaction that a second process waits for."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(6216417)")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        create_indexes(connection)


def create_indexes(connection: Connection) -> None:
    """Creates the event log's indexes that are missing: a first import goes without them and may have been killed."""
    for index in cast(Table, Event.__table__).indexes:
        index.create(connection, checkfirst=True)


def insert_into(bind: Engine | Connection, model: type[DeclarativeBase]) -> postgresql.Insert | sqlite.Insert:
    """The database's own insertion, which can say what is done with a row that is there already."""
    return postgresql.insert(model) if bind.dialect.name == "postgresql" else sqlite.insert(model)


def upsert(
    connection: Connection,
    model: type[DeclarativeBase],
    rows: Sequence[dict[str, Any]],
    *,
    key: Sequence[str],
    columns: Sequence[str] | None = None,
) -> None:
    """Inserts rows, or overwrites `columns` (every given one if not set) of those that exist. Rows have equal keys."""
    if not rows:
        return
    statement = insert_into(connection, model)
    changes = {name: statement.excluded[name] for name in columns or rows[0] if name not in key}
    connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=changes), list(rows))


def _make_folder(engine: Engine) -> None:
    """Makes the folder of SQLite's file.

    Raises:
        DatabaseError: it cannot be made.
    """
    if engine.url.database is None:
        return
    folder = Path(engine.url.database).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseError(
            f"the database's folder {folder} cannot be made ({error.strerror}); set BRAID_DATABASE_URL, or BRAID_HOME, "
            "to a place that this user can write to"
        ) from None


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "busy_timeout=30000",
        "secure_delete=ON",
        "cache_size=-65536",
        "temp_store=MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}")
