"""Ranking metrics: a figure for each moment, the mean over a shopper's moments, the mean over shoppers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def recall_at(hits: npt.NDArray[np.bool_], basket_sizes: npt.NDArray[np.int64], k: int = 10) -> Floats:
    """Share of the basket among the first k, (B,); divided by min(basket size, k), so that 1 can be reached.

    Args:
        hits: bool (B, at least k), whether the item at each rank is in the basket.
        basket_sizes: (B,), at least 1.
    """
    return np.asarray(hits[:, :k].sum(axis=1) / np.minimum(basket_sizes, k))


def ndcg_at(hits: npt.NDArray[np.bool_], basket_sizes: npt.NDArray[np.int64], k: int = 10) -> Floats:
    """Discounted gain 1 / log2(rank + 1) of the hits over that of a perfect ranking, (B,). Arguments as above."""
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(basket_sizes, k)]
    return np.asarray((hits[:, :k] * discounts).sum(axis=1) / ideal)


def mean_of_shoppers(figures: Floats, shoppers: npt.NDArray[np.int64]) -> float:
    """The mean over shoppers of the mean of their moments, at least one."""
    return float(by_shopper(figures, shoppers).mean())


def by_shopper(figures: Floats, shoppers: npt.NDArray[np.int64]) -> Floats:
    """The mean of each shopper's moments, (S,), in the order of the shoppers' rows."""
    _, row = np.unique(shoppers, return_inverse=True)
    return np.asarray(np.bincount(row, weights=figures) / np.bincount(row))


def mrr_at(hits: npt.NDArray[np.bool_], k: int = 10) -> Floats:
    """1 / rank of the first hit among the first k, 0 without one, (B,)."""
    first = hits[:, :k].argmax(axis=1)
    return np.where(hits[:, :k].any(axis=1), 1.0 / (first + 1), 0.0)


def hits_of(
    ranked: npt.NDArray[np.int32], targets: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Whether the item at each rank is a target of its moment, bool (B, K).

    Args:
        ranked: (B, K), -1 where nothing was recommended. targets: flat; offsets: (B + 1,) bounds of each moment's.
    """
    span = int(max(ranked.max(initial=0), targets.max(initial=0))) + 2
    row = np.repeat(np.arange(len(ranked)), np.diff(offsets))
    return np.isin(np.arange(len(ranked))[:, None] * span + ranked + 1, row * span + targets + 1)
