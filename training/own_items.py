"""What each shopper had bought before each moment, as the store's purchases view would have shown it then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from features.inputs.transform import Floats, Ints, own_item_features, pad_own_items
from features.offline.history import PurchaseHistory
from features.schema import UNKNOWN
from training.arrivals import Known
from training.item_trend import ItemTrend
from training.moments import Longs


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnItems:
    """Flat rows, most often bought first, then newest first, at most `OWN_ITEMS` of each of E moments.

    items: int32 (n,). counts, first_ms, last_ms: float64 (n,). basket_counts: float64 (E,). offsets: (E + 1,).
    trends: float32 (n, `TREND_DAYS`) of the items at the moment, where they were asked for.
    """

    items: Ints
    counts: npt.NDArray[np.float64]
    first_ms: npt.NDArray[np.float64]
    last_ms: npt.NDArray[np.float64]
    basket_counts: npt.NDArray[np.float64]
    offsets: Longs
    trends: Floats | None = None

    @staticmethod
    def before(
        known: Known, times_ms: Longs, history: PurchaseHistory | None = None, trend: ItemTrend | None = None
    ) -> OwnItems:
        """What the shopper of each moment was known to have bought before it; `times_ms` (E,) are the moments.

        Args:
            history: `PurchaseHistory.of(known.log.purchases)`, where it is at hand.
            trend: of the items, where their trends at each moment are wanted.
        """
        index = known.log.catalogue.select("item_id", item=pl.int_range(pl.len(), dtype=pl.Int32))
        own = (
            (history or PurchaseHistory.of(known.log.purchases))
            .at(known.shoppers, known.until_ms)
            .join(index, on="item_id", how="left", maintain_order="left")
        )
        example = own["example"].to_numpy()
        basket_counts = np.zeros(len(times_ms))
        basket_counts[example] = own["basket_count"].to_numpy()
        sizes = np.bincount(example, minlength=len(times_ms))
        items = own["item"].fill_null(UNKNOWN).to_numpy().astype(np.int32)
        return OwnItems(
            items=items,
            counts=own["count"].to_numpy().astype(np.float64),
            first_ms=own["first_time_ms"].to_numpy().astype(np.float64),
            last_ms=own["last_time_ms"].to_numpy().astype(np.float64),
            basket_counts=basket_counts,
            offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            trends=None if trend is None else trend.at(items, times_ms[example]),
        )

    def padded(self, rows: Longs, now_ms: Longs) -> tuple[Ints, Floats, Floats]:
        """Items (B, R), features (B, R, F) and trends (B, R, up to `TREND_DAYS`) of moments, cropped to the longest."""
        starts, ends = self.offsets[rows], self.offsets[rows + 1]
        counts = ends - starts
        flat = np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        of = np.repeat(np.arange(len(rows)), counts)
        features = own_item_features(
            self.counts[flat],
            self.first_ms[flat],
            self.last_ms[flat],
            self.basket_counts[rows][of],
            now_ms[of].astype(np.float64),
        )
        bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        width = features.shape[1]
        if self.trends is not None:
            features = np.concatenate([features, self.trends[flat]], axis=1)
        items, values = pad_own_items(
            self.items[flat], features, bounds[:-1], bounds[1:], length=max(int(counts.max(initial=0)), 1)
        )
        return items, values[..., :width], values[..., width:]
