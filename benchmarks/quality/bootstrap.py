"""Paired bootstrap over shoppers: whether a difference would be there with other shoppers of the same kind.

Shoppers are drawn with replacement, all their moments together, and both methods are measured on the same draw (Efron
and Tibshirani, "An Introduction to the Bootstrap", chapters 13 and 16).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from training.moments import Longs

RESAMPLES = 10_000
SEED = 20
CHUNK_DRAWS = 4_000_000
"""Draws of a shopper that are held at once."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure, its 95% percentile interval, and the two-sided p value of it being 0."""

    value: float
    low: float
    high: float
    p: float

    @staticmethod
    def of(value: float, drawn: Floats) -> Interval:
        """From the figure of every resample, (B,). The p value is at least 1 / (B + 1)."""
        low, high = np.quantile(drawn, [0.025, 0.975])
        tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
        return Interval(value=value, low=float(low), high=float(high), p=min(1.0, 2.0 * (tail + 1) / (len(drawn) + 1)))

    def text(self) -> str:
        """A gain with its interval."""
        return f"{self.value:+.4f} ({self.low:+.4f} to {self.high:+.4f})"


def differences(
    figures: Floats, shoppers: Longs, *, mean_of_shoppers: bool, resamples: int = RESAMPLES, seed: int = SEED
) -> list[Interval]:
    """The mean of each of M differences, all on the same draws.

    Args:
        figures: (M, E) one method's figure of each moment less another's. shoppers: (E,).
        mean_of_shoppers: the mean is that over shoppers of the means over their moments, else over moments.
    """
    _, row = np.unique(shoppers, return_inverse=True)
    counts = np.bincount(row)
    sums = np.stack([np.bincount(row, weights=values) for values in figures], axis=1).astype(np.float64)  # (S, M)
    if mean_of_shoppers:
        sums, counts = sums / counts[:, None], np.ones_like(counts)
    drawn = resampled_sums(np.column_stack([sums, counts]), resamples=resamples, seed=seed)
    values = sums.sum(axis=0) / counts.sum()
    return [Interval.of(float(values[at]), drawn[:, at] / drawn[:, -1]) for at in range(len(figures))]


def resampled_sums(parts: Floats, *, resamples: int = RESAMPLES, seed: int = SEED) -> Floats:
    """The sum of each of C columns over S shoppers drawn with replacement, (B, C).

    Args:
        parts: (S, C).
    """
    count = len(parts)
    rng = np.random.default_rng(seed)
    chunk = max(CHUNK_DRAWS // count, 1)
    sums = []
    for at in tqdm(range(0, resamples, chunk), desc="bootstrap", unit="chunk", leave=False, mininterval=0.5):
        size = min(chunk, resamples - at)
        drawn = rng.integers(0, count, (size, count)) + np.arange(size)[:, None] * count
        times = np.bincount(drawn.reshape(-1), minlength=size * count).reshape(size, count)
        sums.append(times.astype(np.float64) @ parts)
    return np.concatenate(sums)
