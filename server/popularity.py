"""What is popular, in all and by segment: the tiers that need neither model nor features.

Read from the table `item_statistics` in the background; in memory, one order of rows for each segment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from features.database.models import ItemStatistic
from server.catalogue_index import CatalogueIndex, Mask, Rows

LOG = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]

POLL_S = 2.0


@dataclass(frozen=True, slots=True)
class SegmentOrder:
    """The rows of one segment, most popular first, and their popularity over its maximum."""

    rows: Rows
    popularity: Floats


EMPTY = SegmentOrder(np.zeros(0, np.int32), np.zeros(0, np.float32))


@dataclass(frozen=True, slots=True)
class Popularity:
    """All segments at one moment; `""` is the whole shop."""

    segments: Mapping[str, SegmentOrder]
    stamp: tuple[int, int, int]
    """Newest statistic, statistics, items that they were matched with."""

    def of_rows(self, rows: Rows) -> Floats:
        """Popularity in the whole shop, float32 (n,), 0 to 1; 0 where unknown or where the row is -1."""
        whole = self.segments.get("", EMPTY)
        values = np.zeros(max(whole.rows.max(initial=0), rows.max(initial=0)) + 2, np.float32)
        values[whole.rows] = whole.popularity
        return values[rows]  # the last entry, for -1, is 0

    def best(self, segment: str, preferred: Mask | None, allowed: Mask, count: int) -> tuple[Rows, Floats, bool]:
        """The most popular allowed rows, best first; items that nobody touched come last, newest first.

        Args:
            segment: such as `country:GB`, or empty; its items come before the others.
            preferred: rows of the page's category; they come before all others.

        Returns:
            Rows, scores, and whether segment or page chose any of them.
        """
        anywhere = np.ones_like(allowed)
        within = [anywhere] if preferred is None else [preferred, anywhere]
        left, rows, scores = allowed.copy(), [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
        chosen = False
        for place, wanted in enumerate(within):
            base = 2 * (len(within) - 1 - place)  # scores of a later step stay below those of an earlier one
            for order, lift in ((self.segments.get(segment, EMPTY) if segment else EMPTY, 1), (self._whole(left), 0)):
                missing = count - sum(part.size for part in rows)
                found = np.flatnonzero((left & wanted)[order.rows])[:missing]
                rows.append(order.rows[found])
                scores.append(order.popularity[found] + np.float32(base + lift))
                left[order.rows[found]] = False
                chosen = chosen or (found.size > 0 and base + lift > 0)
        return np.concatenate(rows), np.concatenate(scores), chosen

    def _whole(self, left: Mask) -> SegmentOrder:
        """The whole shop's order, continued by the rows without statistics."""
        whole = self.segments.get("", EMPTY)
        untouched = left.copy()
        untouched[whole.rows] = False
        rest = np.flatnonzero(untouched)[::-1].astype(np.int32)
        return SegmentOrder(
            np.concatenate([whole.rows, rest]), np.concatenate([whole.popularity, np.zeros(rest.size, np.float32)])
        )


class PopularItems:
    """`current` follows the table."""

    def __init__(self, engine: Engine, index: CatalogueIndex, threads: Executor) -> None:
        self.current = Popularity({}, (-1, -1, -1))
        self.loaded = asyncio.Event()
        self._engine = engine
        self._index = index
        self._threads = threads

    async def refresh(self) -> None:
        """Reads the statistics if they, or the catalogue, have changed.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        loop = asyncio.get_running_loop()
        self.current = await loop.run_in_executor(self._threads, _read, self._engine, self._index, self.current)
        self.loaded.set()

    async def follow(self) -> None:
        """Refreshes for ever; a database that does not answer is logged once."""
        quiet = False
        while True:
            try:
                await self.refresh()
                quiet = False
            except SQLAlchemyError as error:
                if not quiet:
                    LOG.warning("popularity stays as it is for now: %s", error)
                quiet = True
            await asyncio.sleep(POLL_S)


def _read(engine: Engine, index: CatalogueIndex, before: Popularity) -> Popularity:
    """The statistics as they are now; `before` itself if nothing has changed. Runs in a thread."""
    known = len(index)
    with engine.connect() as connection:
        newest, count = connection.execute(select(func.max(ItemStatistic.computed_time_ms), func.count())).one()
        stamp = (newest or 0, count, known)
        if stamp == before.stamp:
            return before
        columns = (ItemStatistic.segment, ItemStatistic.item_id, ItemStatistic.popularity)
        found: dict[str, tuple[list[int], list[float]]] = {}
        for segment, item_id, popularity in connection.execute(select(*columns).where(ItemStatistic.popularity > 0)):
            row = index.row_of.get(item_id, known)
            if row < known:
                rows, values = found.setdefault(segment, ([], []))
                rows.append(row)
                values.append(popularity)
    return Popularity({segment: _ordered(rows, values) for segment, (rows, values) in found.items()}, stamp)


def _ordered(rows: list[int], values: list[float]) -> SegmentOrder:
    numbers, popularity = np.array(rows, np.int32), np.array(values, np.float32)
    order = np.lexsort((numbers, -popularity))
    return SegmentOrder(numbers[order], popularity[order] / np.float32(max(float(popularity.max()), 1e-12)))
