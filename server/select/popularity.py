"""What is popular, in all and by segment: the tiers that need neither model nor features.

Read from the table `item_statistics` in the background; in memory, one order of rows and the weights of each segment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine, func, select

from features.database.models import ItemStatistic
from features.offline.item_statistics import TIME_OF_DAY
from server.catalogue.catalogue_index import CatalogueIndex, Mask, Rows
from server.following import refresh_for_ever

LOG = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]

POLL_S = 2.0

PRIOR_WEIGHT = 1000.0
"""Weighted events (a purchase is one) from which on a segment says more for itself than the wider one does for it.

Of 100, 300, 1,000, 3,000 and 10,000 the best on the validation moments of the simulated shop, by country.
"""


LOOKED_AT = 512
"""Rows of an order that are looked at first."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Weighted events of the rows of one segment, and their sum."""

    rows: Rows
    weights: Floats
    total: float

    @staticmethod
    def of(rows: Sequence[int], weights: Sequence[float]) -> Segment:
        """From lists."""
        return Segment(np.array(rows, np.int32), np.array(weights, np.float32), float(sum(weights)))


@dataclass(frozen=True, slots=True)
class Popularity:
    """All segments at one moment. What is kept by row ends with the last row that has statistics."""

    weights: Floats
    """Weighted events of each row in the whole shop."""
    total: float
    """The sum of them."""
    order: Rows
    """The rows that have any, most first."""
    segments: Mapping[str, Segment]
    """By the names of `features.offline.item_statistics.segments`."""
    events: npt.NDArray[np.int64]
    """Views, clicks, carts and purchases of each row, of any age."""
    stamp: tuple[int, int, int]
    """Newest statistic, statistics, items that they were matched with."""

    @staticmethod
    def of(
        whole: Segment, segments: Mapping[str, Segment], events: npt.NDArray[np.int64], stamp: tuple[int, int, int]
    ) -> Popularity:
        """Sorts the whole shop."""
        weights = np.zeros(int(whole.rows.max(initial=-1)) + 1, np.float32)
        weights[whole.rows] = whole.weights
        order = whole.rows[np.lexsort((whole.rows, -whole.weights))]
        return Popularity(weights, whole.total, order, segments, events, stamp)

    def of_rows(self, rows: Rows) -> Floats:
        """Popularity in the whole shop, float32 (n,), 0 to 1; 0 where unknown or where the row is -1."""
        values = self._of_whole(rows)
        values /= max(float(self.weights.max(initial=0.0)), 1e-12)
        return values.astype(np.float32)

    def best(
        self, segments: Sequence[str], preferred: Mask | None, allowed: Mask, count: int
    ) -> tuple[Rows, Floats, bool]:
        """The most popular allowed rows, best first; items that nobody touched come last, newest first.

        A segment's shares are shrunk to those of the segment before it, the first one's to the whole shop's, the more
        the less it says for itself: share = (w + m * share before) / (W + m), where w are the item's weighted events
        in the segment, W those of all its items, and m is `PRIOR_WEIGHT` (Dirichlet smoothing, Zhai and Lafferty, "A
        Study of Smoothing Methods for Language Models", TOIS 2004, section 3, here level by level).

        Args:
            segments: names, each within the one before; those that the statistics do not have say nothing.
            preferred: rows of the page's category; they come before all others.

        Returns:
            Rows, scores, and whether the page's category or a segment other than the time of day had a say.
        """
        known = [name for name in segments if name in self.segments]
        told, shares, rest = self._shares(known)
        left, rows, scores = allowed.copy(), [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
        in_category = False
        for wanted in (None,) if preferred is None else (preferred, None):
            missing = count - sum(part.size for part in rows)
            may = left if wanted is None else left & wanted
            own = np.flatnonzero(may[told])
            others = may.copy()
            others[told] = False
            of_whole = self._first(others, missing)
            found = np.concatenate([told[own], of_whole])
            values = np.concatenate([shares[own], self.weights[of_whole] * rest])
            best = np.lexsort((found, -values))[:missing]
            found, values = found[best], values[best]
            if found.size < missing:
                others[self.order] = False
                newest = np.flatnonzero(others)[::-1][: missing - found.size].astype(np.int32)
                found, values = np.concatenate([found, newest]), np.concatenate([values, np.zeros(newest.size)])
            rows.append(found)
            scores.append((values + (wanted is not None)).astype(np.float32))  # a share is at most 1
            left[found] = False
            in_category = in_category or (wanted is not None and found.size > 0)
        in_segment = any(not name.startswith(TIME_OF_DAY) for name in known)
        return np.concatenate(rows), np.concatenate(scores), in_category or in_segment

    def scores(self, segments: Sequence[str], preferred: Mask | None, rows: Rows) -> Floats:
        """What `best` scores rows, float32 (n,)."""
        told, shares, rest = self._shares([name for name in segments if name in self.segments])
        values = self._of_whole(rows) * rest
        own = np.isin(rows, told)
        values[own] = shares[np.searchsorted(told, rows[own])]
        if preferred is not None:
            values += preferred[rows]
        return values.astype(np.float32)

    def _shares(self, names: Sequence[str]) -> tuple[Rows, npt.NDArray[np.float64], float]:
        """Rows that a segment has, their shares, and what the whole shop's weights of all other rows are worth."""
        known = [self.segments[name] for name in names]
        told: Rows = np.unique(np.concatenate([np.zeros(0, np.int32), *(part.rows for part in known)]))
        rest = 1.0 / max(self.total, 1e-12)
        shares = self._of_whole(told) * rest
        for part in known:
            shrunk = PRIOR_WEIGHT / (part.total + PRIOR_WEIGHT)
            shares *= shrunk
            rest *= shrunk
            shares[np.searchsorted(told, part.rows)] += part.weights / (part.total + PRIOR_WEIGHT)
        return told, shares, rest

    def _first(self, may: Mask, count: int) -> Rows:
        """The first `count` rows of the whole shop's order that may be taken; it is mostly enough to look at few."""
        looked, most = 0, max(LOOKED_AT, 2 * count)
        found: list[Rows] = []
        while count > 0 and looked < self.order.size:
            part = self.order[looked : looked + most]
            found.append(part[may[part]][:count])
            count -= found[-1].size
            looked, most = looked + most, 8 * most
        return np.concatenate([np.zeros(0, np.int32), *found])

    def _of_whole(self, rows: Rows) -> npt.NDArray[np.float64]:
        """Weighted events in the whole shop, 0 for rows behind the end and for -1."""
        known = (rows >= 0) & (rows < self.weights.size)
        values = np.zeros(rows.size)
        values[known] = self.weights[rows[known]]
        return values


NOTHING = Popularity.of(Segment.of([], []), {}, np.zeros(0, np.int64), (-1, -1, -1))


class PopularItems:
    """`current` follows the table."""

    def __init__(self, engine: Engine, index: CatalogueIndex, threads: Executor) -> None:
        self.current = NOTHING
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
        """Refreshes for ever; what fails is logged once."""
        await refresh_for_ever(self.refresh, POLL_S, LOG, "popularity stays as it is for now")


def _read(engine: Engine, index: CatalogueIndex, before: Popularity) -> Popularity:
    """The statistics as they are now; `before` itself if nothing has changed. Runs in a thread."""
    known = len(index)
    with engine.connect() as connection:
        newest, count = connection.execute(select(func.max(ItemStatistic.computed_time_ms), func.count())).one()
        stamp = (newest or 0, count, known)
        if stamp == before.stamp:
            return before
        table = ItemStatistic
        touched = table.views + table.carts + table.purchases
        found: dict[str, tuple[list[int], list[float]]] = {"": ([], [])}
        events = np.zeros(known, np.int64)
        for segment, item_id, popularity, item_events in connection.execute(
            select(table.segment, table.item_id, table.popularity, touched)
        ):
            row = index.row_of.get(item_id, known)
            if row >= known:
                continue
            if not segment:
                events[row] = item_events
            if popularity > 0:
                rows, weights = found.setdefault(segment, ([], []))
                rows.append(row)
                weights.append(popularity)
    segments = {segment: Segment.of(*parts) for segment, parts in found.items()}
    return Popularity.of(segments.pop(""), segments, events, stamp)
