"""How well each item sold of late, as of any midnight: what a bias, one number for all time, cannot say.

Of what a shopper bought before, the shop's own season decides much: a Christmas decoration comes back in November and
an item that nobody buys any more does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.moments import DAY_MS, Longs, Moments

TREND_DAYS = (7, 28, 91, 364)
"""Days before a midnight over which sales are counted; each gives one number."""

SMOOTHING = 0.5
"""Sales that every item is given beforehand."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemTrend:
    """Sales of N items, sorted by item and day.

    keys: int64 (n,), item times `days` plus day. of_shop: float64 (days + 1,), sales of the shop before each day.
    """

    item_count: int
    first_day: int
    days: int
    keys: Longs
    of_shop: npt.NDArray[np.float64]

    @staticmethod
    def of(moments: Moments, item_count: int) -> ItemTrend:
        """From the targets of moments, in order of time."""
        day = moments.times_ms // DAY_MS
        first_day = int(day.min(initial=1 << 40)) if len(day) else 0
        days = int(day.max(initial=0)) - first_day + 2 if len(day) else 1
        sold = np.repeat(day - first_day, np.diff(moments.offsets))
        of_shop = np.concatenate([[0.0], np.bincount(sold, minlength=days).cumsum()])
        keys = np.sort(moments.targets.astype(np.int64) * days + sold)
        return ItemTrend(item_count=item_count, first_day=first_day, days=days, keys=keys, of_shop=of_shop)

    def at(self, items: npt.NDArray[np.int32], times_ms: Longs) -> Floats:
        """Trends of n items (n,), as of the midnight before a time each (n,), float32 (n, `TREND_DAYS`).

        Each is the log of an item's share of what was sold in the days, times N: 0 is the average item. 0 for items
        below 0, which are none.
        """
        day = np.clip(times_ms // DAY_MS - self.first_day, 0, self.days - 1)
        known = np.maximum(items, 0).astype(np.int64) * self.days
        until = np.searchsorted(self.keys, known + day)
        trends = np.zeros((len(items), len(TREND_DAYS)), np.float32)
        for column, span in enumerate(TREND_DAYS):
            since = np.maximum(day - span, 0)
            sold = until - np.searchsorted(self.keys, known + since)
            of_all = self.of_shop[day] - self.of_shop[since]
            share = (sold + SMOOTHING) / (of_all + SMOOTHING * self.item_count)
            trends[:, column] = np.log(share * self.item_count)
        trends[items < 0] = 0.0
        return trends

    def newest(self) -> Floats:
        """Trends of all items on the day after the last sale, float32 (N, `TREND_DAYS`)."""
        at_ms = np.full(self.item_count, (self.first_day + self.days - 1) * DAY_MS, np.int64)
        return self.at(np.arange(self.item_count, dtype=np.int32), at_ms)
