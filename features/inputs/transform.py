"""Events to padded arrays: the one transform that training and the gateway both call.

Everything here takes flat columns with bounds (`starts`, `ends`: the rows of each example) and returns arrays of
fixed width, without a loop over examples. Training passes the whole log's columns, sorted by shopper and time, and
cuts each example at its own moment; the gateway passes the few rows that it has just read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.schema import OWN_FEATURES, OWN_ITEMS, PADDING, RECENT_EVENTS

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """The newest events of B examples, newest last.

    items: int32 (B, length), item index, `PADDING` or `UNKNOWN`.
    types: int32 (B, length), event type, 0 at padding.
    ages: float32 (B, length), seconds before the example's moment, 0 at padding.
    rows: int64 (B, length), row of the flat columns, -1 at padding.
    """

    items: Ints
    types: Ints
    ages: Floats
    rows: Longs


def pad_sequence(
    items: Ints,
    types: Ints,
    times_ms: Longs,
    starts: Longs,
    ends: Longs,
    now_ms: Longs,
    length: int = RECENT_EVENTS,
) -> Sequence:
    """The last `length` events of each example, right-aligned.

    Args:
        items, types, times_ms: flat columns (n,), in time order within an example.
        starts, ends: (B,) rows of each example, half-open.
        now_ms: (B,) the moment of each example; an age is never negative.
    """
    offsets = np.arange(-length, 0, dtype=np.int64)
    rows = ends[:, None] + offsets[None, :]  # (B, length)
    present = rows >= starts[:, None]
    rows = np.where(present, rows, -1)
    if items.size == 0:
        shape = rows.shape
        return Sequence(
            items=np.full(shape, PADDING, np.int32),
            types=np.zeros(shape, np.int32),
            ages=np.zeros(shape, np.float32),
            rows=rows,
        )
    ages = (now_ms[:, None] - times_ms[rows]) / 1000.0
    return Sequence(
        items=np.where(present, items[rows], PADDING).astype(np.int32, copy=False),
        types=np.where(present, types[rows], 0).astype(np.int32, copy=False),
        ages=np.where(present, np.maximum(ages, 0.0), 0.0).astype(np.float32),
        rows=rows,
    )


def own_item_features(
    counts: npt.NDArray[np.float64],
    first_ms: npt.NDArray[np.float64],
    last_ms: npt.NDArray[np.float64],
    basket_counts: npt.NDArray[np.float64],
    now_ms: npt.NDArray[np.float64],
) -> Floats:
    """Repeat-purchase features, float32 (n, F), one row for each (example, item bought before).

    Args:
        counts: baskets of the shopper that held the item, at least 1.
        first_ms, last_ms: times of the first and the last of them.
        basket_counts: baskets of the shopper in all.
        now_ms: the moment of the example.

    Columns are `schema.OWN_FEATURES`; `gap_ratio` is the time since the last purchase over the mean gap between
    purchases (1 where it was bought once), clipped to 10.
    """
    days_since = np.maximum(now_ms - last_ms, 0.0) / 1000.0 / DAY_S
    repeats = np.maximum(counts - 1.0, 0.0)
    gap_days = np.where(repeats > 0, (last_ms - first_ms) / 1000.0 / DAY_S / np.maximum(repeats, 1.0), 0.0)
    ratio = np.where(gap_days > 0, days_since / np.maximum(gap_days, 1e-3), 1.0)
    columns = (
        np.log1p(counts),
        counts / np.maximum(basket_counts, 1.0),
        np.log1p(days_since),
        np.log1p(gap_days),
        np.minimum(ratio, 10.0),
    )
    assert len(columns) == len(OWN_FEATURES)
    features = np.empty((counts.size, len(columns)), np.float32)
    for place, column in enumerate(columns):
        features[:, place] = column
    return features


def pad_own_items(
    items: Ints, features: Floats, starts: Longs, ends: Longs, length: int = OWN_ITEMS
) -> tuple[Ints, Floats]:
    """Own items (B, length) and their features (B, length, F), first `length` of each example kept, left-aligned.

    Rows come most often bought first, then newest first; an item that the release does not know stays `PADDING`.
    """
    rows = starts[:, None] + np.arange(length, dtype=np.int64)[None, :]
    present = rows < ends[:, None]
    if items.size == 0:
        return (
            np.full(rows.shape, PADDING, np.int32),
            np.zeros((*rows.shape, features.shape[1]), np.float32),
        )
    rows = np.where(present, rows, 0)
    known = present & (items[rows] >= 0)
    return (
        np.where(known, items[rows], PADDING).astype(np.int32, copy=False),
        np.where(known[..., None], features[rows], 0.0).astype(np.float32, copy=False),
    )
