"""What a shopper had bought by a moment, for many (shopper, moment) at once: point-in-time purchases for training.

The same figures as `EventLog.purchases_of` would have given then: what the gateway reads for the request of now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from features.online.rows import basket
from features.schema import OWN_ITEMS, EventType

Longs = npt.NDArray[np.int64]

CHUNK_PAIRS: Final = 4_000_000
"""(example, item) pairs worked on at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurchaseHistory:
    """Purchases sorted by pair (shopper, item), then time; pairs sorted by shopper, then item id."""

    shoppers: pl.Series  # (S,) unique, sorted
    item_ids: pl.Series  # (I,) unique, sorted
    pair_starts: Longs  # (S,) first pair of a shopper
    pair_ends: Longs  # (S,)
    pair_items: Longs  # (P,) index into item_ids
    row_starts: Longs  # (P,) first row of a pair
    times_ms: Longs  # (n,)
    keys: Longs  # (n,) pair * moments + rank of the time, ascending
    distinct_ms: Longs  # distinct times, ascending
    baskets: Longs  # (n + 1,) baskets in which the pair's item was first seen, before each row
    shopper_keys: Longs  # (m,) shopper * moments + rank of the time of each basket's first event, ascending

    @staticmethod
    def of(events: pl.DataFrame) -> PurchaseHistory:
        """Sorts what is needed of events once.

        Args:
            events: columns shopper, item_id, event_type, event_time_ms, order_id, in any order; other types than
                purchases are left out.
        """
        rows = (
            events.filter((pl.col("event_type") == int(EventType.PURCHASE)) & pl.col("item_id").is_not_null())
            .select("shopper", "item_id", "event_time_ms", basket())
            .sort("shopper", "item_id", "event_time_ms")
            .with_columns(
                shopper_code=pl.col("shopper").rle_id().cast(pl.Int64),
                pair=pl.struct("shopper", "item_id").rle_id().cast(pl.Int64),
                first_in_pair=pl.struct("shopper", "item_id", "basket").is_first_distinct(),
            )
        )
        item_ids = rows["item_id"].unique().sort()
        pairs = rows.group_by("pair", maintain_order=True).agg(
            pl.col("shopper_code").first(), pl.col("item_id").first(), pl.len().alias("rows")
        )
        times = rows["event_time_ms"].to_numpy()
        distinct = np.unique(times)
        firsts = rows.group_by("shopper_code", "basket").agg(pl.col("event_time_ms").min())
        shopper_codes = np.arange(rows["shopper"].n_unique())
        pair_shoppers = pairs["shopper_code"].to_numpy()
        row_counts = pairs["rows"].to_numpy().astype(np.int64)
        items = pl.DataFrame({"item_id": item_ids, "code": np.arange(len(item_ids), dtype=np.int64)})
        return PurchaseHistory(
            shoppers=rows["shopper"].unique(maintain_order=True),
            item_ids=item_ids,
            pair_starts=np.searchsorted(pair_shoppers, shopper_codes, side="left"),
            pair_ends=np.searchsorted(pair_shoppers, shopper_codes, side="right"),
            pair_items=pairs.join(items, on="item_id", maintain_order="left")["code"].to_numpy(),
            row_starts=np.cumsum(row_counts) - row_counts,
            times_ms=times,
            keys=_keys(rows["pair"].to_numpy(), times, distinct),
            distinct_ms=distinct,
            baskets=np.concatenate([[0], np.cumsum(rows["first_in_pair"].to_numpy())]).astype(np.int64),
            shopper_keys=np.sort(
                _keys(firsts["shopper_code"].to_numpy(), firsts["event_time_ms"].to_numpy(), distinct)
            ),
        )

    def at(self, shoppers: npt.NDArray[Any], moments_ms: npt.ArrayLike) -> pl.DataFrame:
        """Items that each example's shopper bought strictly before its moment.

        Args:
            shoppers: (B,) values of the column shopper.
            moments_ms: (B,) int64.

        Returns:
            example (row of `shoppers`), item_id, count, first_time_ms, last_time_ms, basket_count; sorted by example,
            then as `EventLog.purchases_of` does: most baskets, newest, item_id; at most `OWN_ITEMS` rows an example.
        """
        moments = np.asarray(moments_ms, np.int64)
        known = pl.DataFrame({"shopper": self.shoppers, "code": np.arange(len(self.shoppers), dtype=np.int64)})
        asked = pl.DataFrame({"shopper": shoppers}, schema={"shopper": self.shoppers.dtype})
        codes = asked.join(known, on="shopper", how="left", maintain_order="left")["code"].fill_null(-1).to_numpy()
        examples = np.flatnonzero(codes >= 0)
        parts = [
            self._before(chunk, codes[chunk], moments[chunk])
            for chunk in _chunks(examples, self.pair_ends[codes[examples]] - self.pair_starts[codes[examples]])
        ]
        return pl.concat(parts) if parts else self._before(examples, codes[examples], moments[examples])

    def _before(self, examples: Longs, shoppers: Longs, moments_ms: Longs) -> pl.DataFrame:
        """The rows of `at` for `examples` (m,), whose shoppers have the codes `shoppers`."""
        moments = np.searchsorted(self.distinct_ms, moments_ms, side="left")
        scale = len(self.distinct_ms) + 1
        basket_counts = np.searchsorted(self.shopper_keys, shoppers * scale + moments) - np.searchsorted(
            self.shopper_keys, shoppers * scale
        )
        sizes = self.pair_ends[shoppers] - self.pair_starts[shoppers]
        owner = np.repeat(np.arange(len(examples)), sizes)
        pair = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes) + self.pair_starts[shoppers][owner]
        end = np.searchsorted(self.keys, pair * scale + moments[owner])
        kept = end > self.row_starts[pair]
        owner, pair, end = owner[kept], pair[kept], end[kept]
        start = self.row_starts[pair]
        frame = pl.DataFrame(
            {
                "example": examples[owner].astype(np.int64),
                "item": self.pair_items[pair],
                "count": self.baskets[end] - self.baskets[start],
                "first_time_ms": self.times_ms[start],
                "last_time_ms": self.times_ms[end - 1],
                "basket_count": basket_counts[owner].astype(np.int64),
            }
        )
        ordered = frame.sort(
            ["example", "count", "last_time_ms", "item"], descending=[False, True, True, False]
        ).filter(pl.int_range(pl.len()).over("example") < OWN_ITEMS)
        return ordered.with_columns(item_id=self.item_ids.gather(ordered["item"])).select(
            "example", "item_id", "count", "first_time_ms", "last_time_ms", "basket_count"
        )


def _keys(groups: Longs, times_ms: Longs, distinct_ms: Longs) -> Longs:
    """One ascending number for (group, time), by which a binary search finds a group's rows before a time."""
    ranks = np.searchsorted(distinct_ms, times_ms, side="left")
    return groups * np.int64(len(distinct_ms) + 1) + ranks


def _chunks(examples: Longs, sizes: Longs) -> Iterator[Longs]:
    """Runs of examples whose `sizes` add up to about `CHUNK_PAIRS`."""
    if not examples.size:
        return
    cuts = np.flatnonzero(np.diff(np.cumsum(sizes) // CHUNK_PAIRS)) + 1
    yield from np.split(examples, cuts)
