"""The moments to learn from and to measure on: a shopper at a time, with the items that came next.

What came next are the purchases of a visit (or of an order), as they stood before the first of them was put in the
cart. Where a log has hardly any purchases, every event is a moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from features.schema import EventType

DAY_MS = 86_400_000
END_OF_TIME_MS = 1 << 60
"""Later than any event."""

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]

MIN_PURCHASE_MOMENTS = 200
"""With fewer purchase moments than this, and than a hundredth of the events, every event is a moment."""

MAX_MOMENTS = 1000
"""Moments of one shopper that are kept, the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """E moments.

    shoppers: (E,) row of the shopper. times_ms: (E,). targets: flat item indices, each moment's unique.
    offsets: (E + 1,) bounds of each moment's targets. known_ms: (E,) when the last of its targets was known; None
    where every event was known when it happened. of: what came next: purchases, or any events.
    """

    shoppers: Longs
    times_ms: Longs
    targets: Ints
    offsets: Longs
    known_ms: Longs | None = None
    of: Literal["purchases", "events"] = "purchases"

    def __len__(self) -> int:
        return len(self.times_ms)

    def take(self, rows: Longs) -> Moments:
        """The given moments, in the given order."""
        counts = self.offsets[rows + 1] - self.offsets[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        flat = np.repeat(self.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
        return Moments(
            shoppers=self.shoppers[rows],
            times_ms=self.times_ms[rows],
            targets=self.targets[flat],
            offsets=offsets,
            known_ms=None if self.known_ms is None else self.known_ms[rows],
            of=self.of,
        )

    def known_by(self, time_ms: int) -> Moments:
        """The moments before a time whose targets were known then: what may be learned from."""
        return self.take(np.flatnonzero(self._known(time_ms)))

    def unknown_by(self, time_ms: int) -> Moments:
        """The others: what could not be learned from then, because it came later or its targets did."""
        return self.take(np.flatnonzero(~self._known(time_ms)))

    def _known(self, time_ms: int) -> npt.NDArray[np.bool_]:
        before: npt.NDArray[np.bool_] = self.times_ms < time_ms
        return before if self.known_ms is None else before & (self.known_ms <= time_ms)

    def between(self, from_ms: int, to_ms: int) -> Moments:
        """The moments of a half-open span of time."""
        return self.take(np.flatnonzero((self.times_ms >= from_ms) & (self.times_ms < to_ms)))

    def targets_of(self, row: int) -> Ints:
        """Target items of one moment."""
        return self.targets[self.offsets[row] : self.offsets[row + 1]]


def purchase_moments(events: pl.DataFrame) -> Moments:
    """What each visit (or order) bought, as of just before its first cart or purchase; in order of time.

    A visit's first is that of any item, an order's is that of its own items.

    Args:
        events: sequence events with number (of the shopper), item, visit, basket (of purchases), by_order (whether a
            purchase's basket is its order), event_type, event_time_ms and known_time_ms, as `training.dataset`
            prepares them.
    """
    known = events.filter(pl.col("item") >= 0)
    bought = known.filter(pl.col("basket").is_not_null())
    moments = (
        bought.group_by("number", "basket")
        .agg(pl.col("event_time_ms").min(), pl.col("known_time_ms").max(), targets=pl.col("item").unique().sort())
        .join(_decided(events, bought), on="basket", how="left")
        .with_columns(time_ms=pl.min_horizontal("event_time_ms", "decided_ms"))
    )
    too_few = moments.height < min(MIN_PURCHASE_MOMENTS, known.height / 100)
    if too_few:
        moments = known.select("number", "known_time_ms", time_ms="event_time_ms", targets=pl.concat_list("item"))
    moments = (
        moments.select("number", "time_ms", "known_time_ms", "targets", first=pl.col("targets").list.first())
        .sort("time_ms", "number", "first")
        .filter(pl.int_range(pl.len()).reverse().over("number") < MAX_MOMENTS)
    )
    counts = moments["targets"].list.len().to_numpy().astype(np.int64)
    late = bool((events["known_time_ms"] > events["event_time_ms"]).any())
    return Moments(
        shoppers=moments["number"].to_numpy().astype(np.int64),
        times_ms=moments["time_ms"].to_numpy().astype(np.int64),
        targets=moments["targets"].explode().to_numpy().astype(np.int32) if moments.height else np.zeros(0, np.int32),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        known_ms=moments["known_time_ms"].to_numpy().astype(np.int64) if late else None,
        of="events" if too_few else "purchases",
    )


def _decided(events: pl.DataFrame, bought: pl.DataFrame) -> pl.DataFrame:
    """Basket, and decided_ms: when its visit put the first thing, or its order the first of its own, into the cart."""
    first = pl.col("event_time_ms").min().alias("decided_ms")
    kind = pl.col("event_type")
    taken = events.filter(kind.is_in([int(EventType.CART), int(EventType.PURCHASE)])).group_by("visit").agg(first)
    carted = events.filter(kind == int(EventType.CART)).group_by("visit", "item").agg(first)
    visits, orders = bought.filter(~pl.col("by_order")), bought.filter("by_order")
    return (
        pl.concat(
            [
                visits.select("basket", "visit").join(taken, on="visit").drop("visit"),
                orders.select("basket", "visit", "item").join(carted, on=["visit", "item"]).drop("visit", "item"),
            ]
        )
        .group_by("basket")
        .agg(pl.col("decided_ms").min())
    )


def popularity_scores(moments: Moments, item_count: int, half_life_days: float) -> npt.NDArray[np.float64]:
    """Moments that took each item, each halved by every `half_life_days` of its age, float64 (N,)."""
    ages_days = (moments.times_ms.max(initial=0) - moments.times_ms) / DAY_MS
    weights = np.repeat(np.power(0.5, ages_days / half_life_days), np.diff(moments.offsets))
    return np.bincount(moments.targets, weights=weights, minlength=item_count).astype(np.float64)
