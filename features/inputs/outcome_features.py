"""What the chance of an event with an item is read from: the model's score, and what the shopper did with the item.

The gateway calls it for the items of one request, training for those of each moment that it asks about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.inputs.transform import DAY_S, Array, Floats
from features.schema import OUTCOME_FEATURES, VISIT_GAP_S, EventType

KNOTS = (-9.0, -7.0, -5.0, -3.0, -1.5)
"""Relative scores at which the slope may change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acts:
    """What one shopper did; items are numbers of any numbering, negative where it has none.

    items, types, ages_s: (n,) the newest events. own_items, own_counts, own_ages_s: (m,) items bought before, in how
    many baskets, and how long ago last. baskets: in all.
    """

    items: npt.NDArray[np.integer[Any]]
    types: npt.NDArray[np.integer[Any]]
    ages_s: npt.NDArray[np.floating[Any]]
    own_items: npt.NDArray[np.integer[Any]]
    own_counts: npt.NDArray[np.floating[Any]]
    own_ages_s: npt.NDArray[np.floating[Any]]
    baskets: float


def relative_scores(scores: Floats, best: Floats) -> Floats:
    """Scores less the logarithm of the summed exponentials of the `schema.TOP_ITEMS` best of all items.

    Args:
        scores: (..., C). best: (..., K).
    """
    highest = best.max(axis=-1, keepdims=True)
    total = np.log(np.exp((best - highest).astype(np.float64)).sum(axis=-1, keepdims=True)) + highest
    relative: Floats = (scores - total).astype(np.float32)
    return relative


def relative_popularity(popularity: npt.NDArray[np.floating[Any]]) -> Floats:
    """Popularity (N,) as a multiple of the average item's, float32."""
    mean = float(popularity.mean()) if popularity.size else 0.0
    return (popularity / mean if mean > 0 else np.zeros_like(popularity)).astype(np.float32)


def outcome_features(
    items: npt.NDArray[np.integer[Any]], relative: Floats, popularity: npt.NDArray[np.floating[Any]], acts: Acts
) -> Floats:
    """float32 (C, `OUTCOME_FEATURES`) for C items.

    Args:
        items: (C,) in the numbering of `acts`. relative: (C,) of `relative_scores`.
        popularity: (C,) of `relative_popularity`.
    """
    known = (items >= 0)[:, None]
    seen = known & (items[:, None] == acts.items[None, :])  # (C, n)
    own = known & (items[:, None] == acts.own_items[None, :])  # (C, m)
    cart, purchase = acts.types == EventType.CART, acts.types == EventType.PURCHASE
    seen_s, carted_s = _newest(seen, acts.ages_s), _newest(seen & cart, acts.ages_s)
    bought_s = np.minimum(_newest(seen & purchase, acts.ages_s), _newest(own, acts.own_ages_s))
    bought = np.where(own, acts.own_counts, 0.0).sum(axis=1)
    now = acts.ages_s < VISIT_GAP_S
    away_s = acts.ages_s.min(initial=90 * DAY_S)
    shopper = (
        np.log1p(now.sum()),
        np.log1p((now & cart).sum()),
        np.log1p((now & purchase).sum()),
        np.log1p(away_s / 3600),
        np.log1p(acts.baskets),
        np.log1p(acts.items.size),
    )
    columns = (
        relative,
        *(np.maximum(relative - knot, 0.0) for knot in KNOTS),
        relative * (away_s < VISIT_GAP_S),
        np.log1p(seen.sum(axis=1)),
        seen_s < VISIT_GAP_S,
        _log_age(seen_s, 3600.0),
        (carted_s < DAY_S) & (carted_s < bought_s),
        np.log1p(bought),
        _log_age(bought_s, DAY_S),
        bought_s < DAY_S,
        np.log1p(popularity),
        *(np.full(items.size, value) for value in shopper),
    )
    assert len(columns) == len(OUTCOME_FEATURES)
    return np.stack([np.asarray(column, np.float32) for column in columns], axis=1)


def _newest(matches: Array, ages_s: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """(C,) the smallest age among each row's matches, infinite without one."""
    youngest: npt.NDArray[np.float64] = np.where(matches, ages_s, np.inf).min(axis=1, initial=np.inf)
    return youngest


def _log_age(ages_s: npt.NDArray[np.float64], unit_s: float) -> npt.NDArray[np.float64]:
    """Logarithm of 1 + age, 0 where it never happened."""
    return np.where(np.isfinite(ages_s), np.log1p(np.where(np.isfinite(ages_s), ages_s, 0.0) / unit_s), 0.0)
