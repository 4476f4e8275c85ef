"""Properties of a moment that should move the gate, and how the long-term weight goes with each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from benchmarks.quality.bootstrap import Interval, resampled_sums
from training.dataset import Log
from training.moments import DAY_MS, Longs, Moments

BUCKETS = 6
LAST_ITEMS = 10
"""Items whose likeness is the consistency of a history."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """How the long weight goes with one property of a moment.

    edges, weights, counts: mean value, mean weight and moments of buckets of about equal size, lowest values first.
    correlation: Spearman's.
    """

    name: str
    edges: list[float]
    weights: list[float]
    counts: list[int]
    correlation: Interval


def hours_since(log: Log, moments: Moments) -> Floats:
    """Hours from the last event to each moment, (E,)."""
    last = log.rows_before(moments.shoppers, moments.times_ms) - 1
    return np.asarray((moments.times_ms - log.times_ms[last]) / 3_600_000.0)


def days_away(log: Log, moments: Moments) -> Floats:
    """Days from the visit before to the last one before each moment, (E,); nan where that was the first."""
    begin = _visit_starts(log, moments)
    before = begin > log.starts[moments.shoppers]
    gap_ms = log.times_ms[begin] - log.times_ms[np.maximum(begin - 1, 0)]
    return np.where(before, gap_ms / DAY_MS, np.nan)


def visit_events(log: Log, moments: Moments) -> Floats:
    """Events before each moment in the visit of the last one, (E,)."""
    ends = log.rows_before(moments.shoppers, moments.times_ms)
    return np.asarray(ends - _visit_starts(log, moments), np.float64)


def _visit_starts(log: Log, moments: Moments) -> Longs:
    """The first row of the visit that holds the last event before each moment, (E,)."""
    ends = log.rows_before(moments.shoppers, moments.times_ms)
    visit_starts = np.searchsorted(log.visits, log.visits[ends - 1], side="left")
    return np.maximum(visit_starts, log.starts[moments.shoppers])


def likeness(log: Log, moments: Moments, vectors: npt.NDArray[np.float32]) -> Floats:
    """Mean cosine of two of the last `LAST_ITEMS` known items before each moment, (E,); nan with fewer than two.

    Args:
        vectors: (N, D) of the items.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    ends = log.rows_before(moments.shoppers, moments.times_ms)
    at = ends[:, None] - np.arange(1, LAST_ITEMS + 1)
    items = np.where(at >= log.starts[moments.shoppers][:, None], log.items[at], -1)
    known = items >= 0
    counts = known.sum(axis=1)
    lengths = np.linalg.norm((unit[items] * known[:, :, None]).sum(axis=1), axis=1) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(counts > 1, (lengths - counts) / (counts * (counts - 1.0)), np.nan)


def signal(name: str, values: Floats, weights: Floats, shoppers: Longs) -> Signal:
    """Buckets and Spearman's correlation of a property with the weight, over the moments that have the property.

    A resample keeps the ranks of the whole: its correlation is that of the ranks of the moments drawn.
    """
    kept = np.isfinite(values)
    values, weights, shoppers = values[kept], weights[kept], shoppers[kept]
    left, right = rankdata(values), rankdata(weights)
    left, right = left - left.mean(), right - right.mean()
    columns = np.stack([np.ones(len(left)), left, right, left * left, right * right, left * right])
    _, row = np.unique(shoppers, return_inverse=True)
    parts = np.stack([np.bincount(row, weights=column) for column in columns], axis=1).astype(np.float64)
    drawn = _correlation(resampled_sums(parts))
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BUCKETS + 1)[1:-1]))
    bucket = np.searchsorted(edges, values, side="left")
    present = np.unique(bucket)
    return Signal(
        name=name,
        edges=[float(values[bucket == at].mean()) for at in present],
        weights=[float(weights[bucket == at].mean()) for at in present],
        counts=[int((bucket == at).sum()) for at in present],
        correlation=Interval.of(float(_correlation(parts.sum(axis=0)[None, :])[0]), drawn),
    )


def _correlation(sums: Floats) -> Floats:
    """Pearson's of the sums of 1, x, y, xx, yy, xy, (B, 6) to (B,); 0 where one does not vary."""
    n, x, y, xx, yy, xy = sums.T
    scale = np.sqrt(np.maximum(xx - x * x / n, 0.0) * np.maximum(yy - y * y / n, 0.0))
    return np.where(scale > 0, (xy - x * y / n) / np.where(scale > 0, scale, 1.0), 0.0)
