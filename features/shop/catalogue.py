"""The catalogue: what the shop sells, with a revision that tells the gateways what has changed.

Every change of an item gives it the next revision. Writers take the numbers from one row of `counters` inside their
own transaction, so revisions become visible in order: a reader that has seen revision 7 misses nothing below it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import polars as pl
from sqlalchemy import Connection, Engine, String, Table, bindparam, func, select, type_coerce, update

from features.database.counters import add_to_counter
from features.database.engine import upsert
from features.database.models import Item
from features.inputs.content import CATALOGUE_COLUMNS

FRAME_COLUMNS: Final[dict[str, pl.DataType]] = CATALOGUE_COLUMNS | {
    "stock": pl.Int64(),
    "variant_group": pl.String(),
    "age_restricted": pl.Boolean(),
    "launch_time_ms": pl.Int64(),
}
"""Columns of `Catalogue.frame`."""

_ITEMS = cast(Table, Item.__table__)
_COUNTER = "catalogue_revision"
_ROWS_A_QUERY = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueItem:
    """One thing that the shop sells. `deleted` and `revision` are read, never written."""

    item_id: str
    title: str | None = None
    category_path: list[str] = field(default_factory=list)
    brand: str | None = None
    price: float | None = None
    stock: int | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    variant_group: str | None = None
    age_restricted: bool = False
    launch_time_ms: int | None = None
    deleted: bool = False
    revision: int = 0


Items = list[CatalogueItem]
_NAMES = tuple(entry.name for entry in dataclasses.fields(CatalogueItem))


class Catalogue:
    """The table `items`."""

    counter: Final = _COUNTER
    """Of its changes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def upsert(self, items: Sequence[CatalogueItem], fields: Sequence[str] | None = None) -> int:
        """Inserts items or overwrites them, all or none; the last of two with one id holds. Returns how many it wrote.

        Args:
            fields: what to overwrite of items that exist (all if not given). Items that there never were are inserted
                whole; deleted ones are passed over: a part of an item does not bring it back.

        Raises:
            ValueError: a name in `fields` is no field of `CatalogueItem`, or is its id.
        """
        unknown = set(fields or ()) - (set(_ITEMS.c.keys()) - {"item_id", "deleted", "revision"})
        if unknown:
            raise ValueError(f"fields {sorted(unknown)} cannot be updated; known are those of CatalogueItem")
        rows = {item.item_id: {name: getattr(item, name) for name in _NAMES} | {"deleted": False} for item in items}
        if not rows:
            return 0
        with self._engine.begin() as connection:
            revision = next_revisions(connection, len(rows))
            for offset, row in enumerate(rows.values()):
                row["revision"] = revision + offset
            known = _known(connection, list(rows)) if fields else {}
            existing = [key for key in rows if known.get(key) is False]
            upsert(connection, Item, [row for key, row in rows.items() if key not in known], key=["item_id"])
            if fields and existing:
                values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in (*fields, "revision")}
                statement = update(_ITEMS).where(Item.item_id == bindparam("id")).values(values)
                changes = [{"id": key} | {f"new_{name}": rows[key][name] for name in values} for key in existing]
                connection.execute(statement, changes)
        return len(rows) - len(known) + len(existing)

    def get(self, item_id: str) -> CatalogueItem | None:
        """One item, or None if the catalogue has none of that id."""
        return self.of([item_id]).get(item_id)

    def of(self, item_ids: Sequence[str]) -> dict[str, CatalogueItem]:
        """Those of the items that the catalogue has, by id."""
        found: dict[str, CatalogueItem] = {}
        with self._engine.connect() as connection:
            for start in range(0, len(item_ids), _ROWS_A_QUERY):
                ids = item_ids[start : start + _ROWS_A_QUERY]
                statement = select(_ITEMS).where(Item.item_id.in_(ids), Item.deleted.is_(False))
                found |= {row.item_id: _item(row) for row in connection.execute(statement)}
        return found

    def list(self, after: str, limit: int) -> Items:
        """At most `limit` items whose id is above `after`, by id."""
        statement = select(_ITEMS).where(Item.item_id > after, Item.deleted.is_(False))
        with self._engine.connect() as connection:
            return [_item(row) for row in connection.execute(statement.order_by(Item.item_id).limit(limit))]

    def delete(self, item_ids: Sequence[str]) -> int:
        """Takes items out of the catalogue; returns how many were there."""
        with self._engine.begin() as connection:
            revision = next_revisions(connection, len(item_ids))
            present = sorted(key for key, deleted in _known(connection, item_ids).items() if not deleted)
            if present:
                statement = update(_ITEMS).where(Item.item_id == bindparam("id"))
                changes = [{"id": key, "new": revision + offset} for offset, key in enumerate(present)]
                connection.execute(statement.values(deleted=True, revision=bindparam("new")), changes)
        return len(present)

    def changed_since(self, revision: int, limit: int) -> Items:
        """At most `limit` items with a revision above `revision`, ascending; those taken out have `deleted`."""
        statement = select(_ITEMS).where(Item.revision > revision).order_by(Item.revision).limit(limit)
        with self._engine.connect() as connection:
            return [_item(row) for row in connection.execute(statement)]

    def revision(self) -> int:
        """The newest revision, 0 in a catalogue that never had an item."""
        with self._engine.connect() as connection:
            return connection.scalar(select(func.max(Item.revision))) or 0

    def frame(self) -> pl.DataFrame:
        """Every item that is not deleted, by id; columns `FRAME_COLUMNS`, attributes as sorted `name=value`."""
        columns = [
            type_coerce(column, String) if name in ("category_path", "attributes") else column
            for name, column in ((name, _ITEMS.c[name]) for name in FRAME_COLUMNS)
        ]
        statement = select(*columns).where(Item.deleted.is_(False)).order_by(Item.item_id)
        with self._engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(statement)]
        schema = FRAME_COLUMNS | {"category_path": pl.Object(), "attributes": pl.Object()}
        frame = pl.DataFrame(rows, schema=schema, orient="row")
        return frame.with_columns(
            category_path=pl.Series([_decoded(value) for value in frame["category_path"]], dtype=pl.List(pl.String)),
            attributes=pl.Series(
                [sorted(f"{name}={value}" for name, value in _decoded(text).items()) for text in frame["attributes"]],
                dtype=pl.List(pl.String),
            ),
        ).select(list(FRAME_COLUMNS))


def next_revisions(connection: Connection, count: int) -> int:
    """The first of `count` new revisions; other writers of the catalogue wait until this transaction ends."""
    return add_to_counter(connection, _COUNTER, count) - count + 1


def _known(connection: Connection, item_ids: Sequence[str]) -> dict[str, bool]:
    """Those of the ids that there ever were, and whether they are deleted."""
    found: dict[str, bool] = {}
    for start in range(0, len(item_ids), _ROWS_A_QUERY):
        statement = select(Item.item_id, Item.deleted).where(Item.item_id.in_(item_ids[start : start + _ROWS_A_QUERY]))
        found |= {item_id: deleted for item_id, deleted in connection.execute(statement)}
    return found


def _item(row: Any) -> CatalogueItem:
    return CatalogueItem(**row._mapping)


def _decoded(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value
