"""Writes the online rows of given shoppers, read whole from the log: a row that is written twice is the same row.

A shopper whose row cannot be made or written (a figure that no column holds) is left out, counted and said once for
each kind of error; the others' rows are written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl
from sqlalchemy import Engine
from sqlalchemy.exc import DataError

from features import store
from features.log.event_log import EventLog
from features.online.rows import purchase_rows, recent_rows
from features.schema import RECENT_EVENTS

BAD_DATA: Final = (
    ValueError,
    TypeError,
    ArithmeticError,
    DataError,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
)
"""What a row can be guilty of; anything else is the fault of a database or a store and ends the pass."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsToWrite:
    """Shoppers by which of their rows are to be written."""

    recent: Collection[str] = ()
    purchases: Collection[str] = ()
    left: Collection[str] = ()
    """Sessions that may have no events any more: all their rows are deleted first."""

    def __bool__(self) -> bool:
        return bool(self.recent or self.purchases or self.left)

    def joined(self, other: RowsToWrite) -> RowsToWrite:
        """Both together."""
        return RowsToWrite(
            recent={*self.recent, *other.recent},
            purchases={*self.purchases, *other.purchases},
            left={*self.left, *other.left},
        )


class ShopperRows:
    """The rows of events of any shoppers."""

    def __init__(self, engine: Engine, feast: store.FeatureStore) -> None:
        self._log = EventLog(engine)
        self._store = feast
        self.left_out = 0
        """Rows that could not be written."""
        self._said: set[str] = set()

    def write(self, work: RowsToWrite) -> None:
        """Writes the rows of newest events and of purchases; hold the lock `online-rows`.

        Raises:
            StoreError, SQLAlchemyError: a store cannot be used now; what was written may be written again.
        """
        self._each(self._delete, sorted(work.left))
        self._each(self._write_recent, sorted(work.recent))
        self._each(self._write_purchases, sorted(work.purchases))

    def _write_recent(self, shoppers: Sequence[str]) -> None:
        store.write_recent(self._store, recent_rows(self._log.recent_of(shoppers, RECENT_EVENTS)))

    def _write_purchases(self, shoppers: Sequence[str]) -> None:
        store.write_purchases(self._store, purchase_rows(self._log.purchases_of(shoppers)))

    def _delete(self, shoppers: Sequence[str]) -> None:
        store.delete_shoppers(self._store, shoppers)

    def _each(self, act: Callable[[Sequence[str]], None], shoppers: Sequence[str]) -> None:
        """Acts on all at once; where that fails, on halves, down to the one whose data it is."""
        if not shoppers:
            return
        try:
            act(shoppers)
        except BAD_DATA as error:
            if len(shoppers) > 1:
                middle = len(shoppers) // 2
                self._each(act, shoppers[:middle])
                self._each(act, shoppers[middle:])
                return
            self.left_out += 1
            kind = type(error).__name__
            if kind not in self._said:
                self._said.add(kind)
                logger.error("a shopper's row cannot be written, going on without it: %s", kind)
