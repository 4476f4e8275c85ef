"""Rows into the table `events`, inside the caller's transaction: each id once, and sessions joined to who signs in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from sqlalchemy import Connection

from features.log.sign_ins import sign_in

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
_ROW: Final = f"({', '.join('?' * len(INSERTED))})"
_SQLITE: Final[dict[int, str]] = {
    size: f"INSERT INTO events ({_NAMES}) VALUES {', '.join([_ROW] * size)} ON CONFLICT (event_id) DO NOTHING"
    for size in (100, 10, 1)
}
"""Statement by rows. Between two statements, and two rows of an answer, the thread stands in line for Python's lock
behind the event loop: few statements and one row each is several times as fast as one by one."""
_SQLITE_ADDED: Final = "SELECT json_group_array(event_id) FROM events WHERE position > ?"
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
        added = connection.exec_driver_sql(_POSTGRESQL, tuple(map(list, zip(*rows, strict=True)))).fetchall()
        before = min((position for position, _ in added), default=0) - 1
        new = {event_id for _, event_id in added}
    else:
        before = connection.exec_driver_sql("SELECT coalesce(max(position), 0) FROM events").scalar_one()
        start = 0
        for size, statement in _SQLITE.items():
            while len(rows) - start >= size:
                values = tuple(chain.from_iterable(rows[start : start + size]))
                connection.exec_driver_sql(statement, values)
                start += size
        new = set(json.loads(connection.exec_driver_sql(_SQLITE_ADDED, (before,)).scalar_one()))
    if new and any(row[_SESSION] for row in rows):
        placeholder = "%s" if connection.dialect.name == "postgresql" else "?"
        sign_in(lambda statement: connection.exec_driver_sql(statement, (before,)), placeholder)
    return new
