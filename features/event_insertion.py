"""Rows into the table `events`, inside the caller's transaction: each id once, and sessions joined to who signs in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection

from features.sign_ins import sign_in

INSERTED: Final[dict[str, str]] = {
    "event_id": "varchar",
    "shopper": "varchar",
    "session_id": "varchar",
    "item_id": "varchar",
    "event_type": "integer",
    "event_time_ms": "bigint",
    "arrival_time_ms": "bigint",
    "order_id": "varchar",
    "quantity": "double precision",
    "price": "double precision",
    "query": "varchar",
    "attribution_token": "varchar",
}
"""Columns of a row, in its order, with PostgreSQL's types."""

_NAMES: Final = ", ".join(INSERTED)
_SQLITE: Final = (
    f"INSERT INTO events ({_NAMES}) VALUES ({', '.join('?' * len(INSERTED))}) ON CONFLICT (event_id) DO NOTHING"
)
_POSTGRESQL: Final = (
    f"INSERT INTO events ({_NAMES}) SELECT {_NAMES} "
    f"FROM unnest({', '.join(f'%s::{kind}[]' for kind in INSERTED.values())}) "
    f"WITH ORDINALITY AS given({_NAMES}, place) ORDER BY place "
    "ON CONFLICT (event_id) DO NOTHING RETURNING position, event_id"
)
_SESSION: Final = list(INSERTED).index("session_id")


def insert_events(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> set[str]:
    """Stores rows (columns `INSERTED`) in their order; the connection is the log's only writer.

    Returns:
        The ids of those that were not in the log.
    """
    if connection.dialect.name == "postgresql":
        new = connection.exec_driver_sql(_POSTGRESQL, tuple(map(list, zip(*rows, strict=True)))).fetchall()
        before = min((position for position, _ in new), default=0) - 1
    else:  # many rows in one statement have no RETURNING there
        before = connection.exec_driver_sql("SELECT coalesce(max(position), 0) FROM events").scalar_one()
        connection.exec_driver_sql(_SQLITE, list(rows))
        added = "SELECT position, event_id FROM events WHERE position > ?"
        new = connection.exec_driver_sql(added, (before,)).fetchall()
    if new and any(row[_SESSION] for row in rows):
        sign_in(connection.exec_driver_sql, before)
    return {event_id for _, event_id in new}
