"""The event log: what shoppers did, in the order in which it was committed.

`position` numbers the events in commit order on both databases, so that a follower that has read up to a position
never misses one below it. SQLite has one writer at a time; on PostgreSQL every writer holds one advisory lock from
before its first number until its commit (a plain sequence hands 101 to a transaction that commits before 100).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import polars as pl
from sqlalchemy import Connection, Engine, String, cast, func, select, text

from features.database.models import Event, SignIn
from features.erasure.tombstones import HOLD_LOCK, Tombstones, erased_by, named_keys
from features.log.event_insertion import INSERTED, insert_events
from features.log.sign_ins import INDEX_PLANS
from features.schema import OWN_ITEMS, SEQUENCE_TYPES, EventType, shopper_key

EVENT_COLUMNS: Final[dict[str, pl.DataType]] = {
    "position": pl.Int64(),
    "event_id": pl.String(),
    "shopper": pl.String(),
    "session_id": pl.String(),
    "item_id": pl.String(),
    "event_type": pl.Int32(),
    "event_time_ms": pl.Int64(),
    "arrival_time_ms": pl.Int64(),
    "order_id": pl.String(),
    "quantity": pl.Float64(),
    "price": pl.Float64(),
    "query": pl.String(),
    "attribution_token": pl.String(),
}
"""Columns of `read_after` and `scan`: those of the table, in its order."""

RECENT_COLUMNS: Final[dict[str, pl.DataType]] = {
    name: EVENT_COLUMNS[name] for name in ("shopper", "event_id", "item_id", "event_type", "event_time_ms", "position")
}
PURCHASE_COLUMNS: Final[dict[str, pl.DataType]] = {
    "shopper": pl.String(),
    "item_id": pl.String(),
    "count": pl.Int64(),
    "first_time_ms": pl.Int64(),
    "last_time_ms": pl.Int64(),
    "basket_count": pl.Int64(),
}

SIGN_IN_COLUMNS: Final[dict[str, pl.DataType]] = {
    "session_id": pl.String(),
    "shopper": pl.String(),
    "sign_in_position": pl.Int64(),
    "sign_in_arrival_ms": pl.Int64(),
}

WRITER_LOCK: Final = 6216418
"""Key of the advisory lock that every PostgreSQL writer of the log takes first."""

_SHOPPERS_A_QUERY = 500
_SHOPPER, _SESSION = (list(INSERTED).index(name) for name in ("shopper", "session_id"))
_TYPES = ", ".join(str(int(kind)) for kind in SEQUENCE_TYPES)
# Both walk the index events_by_shopper backwards and stop at the limit, however many events a shopper has.
_LAST_POSITION = select(func.max(Event.position))
"""Made once: a worker asks forty times a second."""

_RECENT_SQLITE = f"""
SELECT s.value, e.event_id, e.item_id, e.event_type, e.event_time_ms, e.position
FROM json_each(:shoppers) AS s CROSS JOIN events AS e ON e.position IN (
    SELECT position FROM events
    WHERE shopper = s.value AND event_type IN ({_TYPES})
    ORDER BY event_time_ms DESC, position DESC LIMIT :limit)
ORDER BY 1, 5, 6"""
_RECENT_POSTGRESQL = f"""
SELECT s.shopper, e.event_id, e.item_id, e.event_type, e.event_time_ms, e.position
FROM unnest(CAST(:shoppers AS varchar[])) AS s(shopper) CROSS JOIN LATERAL (
    SELECT event_id, item_id, event_type, event_time_ms, position FROM events
    WHERE shopper = s.shopper AND event_type IN ({_TYPES})
    ORDER BY event_time_ms DESC, position DESC LIMIT :limit) AS e
ORDER BY 1, 5, 6"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event on its way into the log; `event_id` is the idempotency key."""

    event_id: str
    event_type: int
    event_time_ms: int
    user_id: str | None
    session_id: str | None
    item_id: str | None
    order_id: str | None = None
    quantity: float | None = None
    price: float | None = None
    query: str | None = None
    attribution_token: str | None = None


class Outcome(IntEnum):
    """What became of an event."""

    DUPLICATE = 0
    """Its `event_id` was in the log, or earlier in the batch; nothing was stored."""
    STORED = 1
    ERASED = 2
    """Its person or session was erased; nothing was stored."""
    REFUSED = 3
    """The database does not take its data; `append` raises, its caller finds out whose fault it is."""


def lock_writers(connection: Connection) -> None:
    """Makes this transaction the only writer of the log, and holds (`hold`), until it ends; call it first."""
    if connection.dialect.name == "postgresql":
        locks = f"pg_advisory_xact_lock({WRITER_LOCK}), pg_advisory_xact_lock_shared({HOLD_LOCK})"
        connection.exec_driver_sql(f"SELECT {locks}, {INDEX_PLANS}")
    else:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


class EventLog:
    """The table `events`.

    Args:
        tombstones: who was erased, for `append`; readers need none.
    """

    def __init__(self, engine: Engine, tombstones: Tombstones | None = None) -> None:
        self._engine = engine
        self._tombstones = tombstones

    def append(self, events: Sequence[NewEvent], arrival_time_ms: int) -> list[Outcome]:
        """Stores the events in one transaction; durable when it returns.

        Sessions are joined to the persons who sign in: see `features.log.sign_ins`.

        Args:
            arrival_time_ms: what the clock says; should it step back, so do arrivals, and positions go on.

        Returns:
            What became of each event.

        Raises:
            ValueError: an event has neither user nor session; nothing is stored.
            DatabaseError: persons were erased, and this log cannot tell who; nothing is stored.
        """
        rows: dict[str, tuple[Any, ...]] = {}
        first: list[bool] = []
        for event in events:
            first.append(event.event_id not in rows)
            rows.setdefault(event.event_id, _row(event, arrival_time_ms))
        if not rows:
            return []
        with self._engine.begin() as connection:
            lock_writers(connection)
            erased = self._erased(connection, rows)
            kept = [row for event_id, row in rows.items() if event_id not in erased]
            stored = insert_events(connection, kept) if kept else set()
        return [
            Outcome.ERASED if event.event_id in erased else Outcome(new and event.event_id in stored)
            for new, event in zip(first, events, strict=True)
        ]

    def _erased(self, connection: Connection, rows: dict[str, tuple[Any, ...]]) -> set[str]:
        """Ids of the events whose shopper or session was erased; none is until the transaction ends."""
        erased = erased_by(self._tombstones, connection, (key for row in rows.values() for key in _keys(row)))
        if not erased:
            return set()
        return {event_id for event_id, row in rows.items() if not erased.isdisjoint(_keys(row))}

    def read_after(self, position: int, limit: int) -> pl.DataFrame:
        """At most `limit` events above `position`, ascending; columns `EVENT_COLUMNS`."""
        table = Event.__table__
        statement = select(table).where(table.c.position > position).order_by(table.c.position).limit(limit)
        with self._engine.connect() as connection:
            return _frame(connection.execute(statement).fetchall(), EVENT_COLUMNS)

    def last_position(self) -> int:
        """The position of the newest event, 0 in an empty log."""
        with self._engine.connect() as connection:
            return connection.scalar(_LAST_POSITION) or 0

    def recent_of(self, shoppers: Sequence[str], limit: int) -> pl.DataFrame:
        """The newest `limit` events of `SEQUENCE_TYPES` of each shopper; columns `RECENT_COLUMNS`.

        Rows are sorted by shopper, then ascending by (event_time_ms, position).
        """
        frames = []
        with self._engine.connect() as connection:
            on_sqlite = connection.dialect.name == "sqlite"
            statement = text(_RECENT_SQLITE if on_sqlite else _RECENT_POSTGRESQL)
            for chunk in _chunks(shoppers):
                parameter = json.dumps(chunk) if on_sqlite else chunk
                rows = connection.execute(statement, {"shoppers": parameter, "limit": limit}).fetchall()
                frames.append(_frame(rows, RECENT_COLUMNS))
        return pl.concat([_frame([], RECENT_COLUMNS), *frames]).sort("shopper", "event_time_ms", "position")

    def purchases_of(self, shoppers: Sequence[str]) -> pl.DataFrame:
        """What each shopper bought, at most `OWN_ITEMS` items: most baskets first, then newest.

        A basket is an order, or where there is no order id, a moment. Columns `PURCHASE_COLUMNS`; `count` is the
        baskets that held the item, `basket_count` all baskets of the shopper.
        """
        basket = func.coalesce(Event.order_id, cast(Event.event_time_ms, String)).label("basket")
        frames = []
        with self._engine.connect() as connection:
            for chunk in _chunks(shoppers):
                bought = (
                    select(Event.shopper, Event.item_id, Event.event_time_ms, basket)
                    .where(Event.shopper.in_(chunk), Event.event_type == EventType.PURCHASE, Event.item_id.is_not(None))
                    .cte("bought")
                )
                baskets = (
                    select(bought.c.shopper, func.count(bought.c.basket.distinct()).label("basket_count"))
                    .group_by(bought.c.shopper)
                    .subquery("baskets")
                )
                items = (
                    select(
                        bought.c.shopper,
                        bought.c.item_id,
                        func.count(bought.c.basket.distinct()).label("count"),
                        func.min(bought.c.event_time_ms).label("first_time_ms"),
                        func.max(bought.c.event_time_ms).label("last_time_ms"),
                    )
                    .group_by(bought.c.shopper, bought.c.item_id)
                    .subquery("counted")
                )
                statement = select(items, baskets.c.basket_count).join(baskets, baskets.c.shopper == items.c.shopper)
                frames.append(_frame(connection.execute(statement).fetchall(), PURCHASE_COLUMNS))
        return (
            pl.concat([_frame([], PURCHASE_COLUMNS), *frames])
            .sort(["shopper", "count", "last_time_ms", "item_id"], descending=[False, True, True, False])
            .group_by("shopper", maintain_order=True)
            .head(OWN_ITEMS)
        )

    def sign_ins(self) -> pl.DataFrame:
        """Every sign-in: session_id, shopper, sign_in_position, and sign_in_arrival_ms of the event that signed in."""
        statement = select(SignIn.session_id, SignIn.shopper, SignIn.position, Event.arrival_time_ms)
        with self._engine.connect() as connection:
            rows = connection.execute(statement.join(Event, Event.position == SignIn.position)).fetchall()
        return _frame(rows, SIGN_IN_COLUMNS)

    def scan(self, batch_rows: int = 100_000) -> Iterator[pl.DataFrame]:
        """The whole log in position order, `batch_rows` at a time; columns `EVENT_COLUMNS`."""
        position = 0
        while (frame := self.read_after(position, batch_rows)).height:
            position = frame["position"][-1]
            yield frame


def _row(event: NewEvent, arrival_time_ms: int) -> tuple[Any, ...]:
    """Columns `INSERTED`."""
    return (
        event.event_id,
        shopper_key(event.user_id, event.session_id),
        event.session_id or None,
        event.item_id or None,
        int(event.event_type),
        event.event_time_ms,
        arrival_time_ms,
        event.order_id or None,
        event.quantity,
        event.price,
        event.query or None,
        event.attribution_token or None,
    )


def _keys(row: tuple[Any, ...]) -> set[str]:
    """Whom a row of `_row` names."""
    return named_keys(row[_SHOPPER], row[_SESSION])


def _frame(rows: Sequence[Any], columns: dict[str, pl.DataType]) -> pl.DataFrame:
    return pl.DataFrame([tuple(row) for row in rows], schema=columns, orient="row")


def _chunks(shoppers: Sequence[str]) -> Iterator[list[str]]:
    unique = sorted(set(shoppers))
    for start in range(0, len(unique), _SHOPPERS_A_QUERY):
        yield unique[start : start + _SHOPPERS_A_QUERY]
