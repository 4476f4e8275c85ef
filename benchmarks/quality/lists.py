"""What the recommended lists are like beside being right: how much of the catalogue they show, how new, how various."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from training.evaluate import Stage
from training.moments import Ints, Longs

PLACES = 10

Floats = npt.NDArray[np.float64]


class Shelf:
    """What a stage's learned events say of the items: the same yardstick for every method."""

    def __init__(self, stage: Stage) -> None:
        learned = stage.learn & (stage.log.items >= 0)
        items = stage.log.items[learned]
        self.allowed = stage.test.allowed
        self.events = np.bincount(items, minlength=stage.log.item_count)
        self.vectors = _shopper_vectors(stage.log.shoppers[learned], items, stage.log.item_count)

    def figures(self, ranked: Ints) -> dict[str, float]:
        """Coverage, novelty, diversity and Gini of the first ten.

        coverage: share of the items that may be ranked that stand in any list. gini: of how often each of these is
        recommended, 0 if all alike. novelty: mean -log2 of an item's share of the learned events, bits; an item
        without any counts as with one. diversity: 1 - mean cosine of two items of a list, each a vector over the
        shoppers who had it (Vargas and Castells, "Rank and relevance in novelty and diversity", RecSys 2011).

        Args:
            ranked: int32 (E, at least 10), -1 for none.
        """
        lists = ranked[:, :PLACES]
        shown = np.bincount(lists[lists >= 0], minlength=len(self.events))[self.allowed]
        share = np.maximum(self.events, 1) / max(self.events.sum(), 1)
        return {
            "coverage": float((shown > 0).mean()),
            "gini": gini(shown),
            "novelty": float(-np.log2(share[lists[lists >= 0]]).mean()),
            "diversity": self._diversity(lists),
        }

    def _diversity(self, lists: Ints) -> float:
        """Mean over lists of at least two items."""
        left, right = np.triu_indices(lists.shape[1], 1)
        first, second = lists[:, left], lists[:, right]
        real = (first >= 0) & (second >= 0)
        count = len(self.events)
        pairs, place = np.unique(first[real].astype(np.int64) * count + second[real], return_inverse=True)
        cosine = np.zeros(real.shape)
        cosine[real] = self._cosines(pairs // count, pairs % count)[place]
        sizes = real.sum(axis=1)
        if not sizes.any():
            return 0.0
        return float(1.0 - (cosine.sum(axis=1)[sizes > 0] / sizes[sizes > 0]).mean())

    def _cosines(self, left: Longs, right: Longs) -> Floats:
        """Cosine of each pair, (P,)."""
        kept, place = np.unique(np.concatenate([left, right]), return_inverse=True)
        part = self.vectors[:, kept]
        gram = sparse.csr_matrix(part.T @ part)
        return np.asarray(gram[place[: len(left)], place[len(left) :]], np.float64).reshape(-1)


def gini(counts: npt.NDArray[np.int64]) -> float:
    """Gini coefficient of non-negative counts: 0 if all are equal, near 1 if one has everything."""
    ordered = np.sort(counts)
    total = ordered.sum()
    if not total:
        return 0.0
    place = np.arange(1, len(ordered) + 1)
    return float((2 * place - len(ordered) - 1) @ ordered / (len(ordered) * total))


def _shopper_vectors(shoppers: Longs, items: Ints, item_count: int) -> sparse.csc_matrix:
    """Which shopper had which item, columns of length one, float32 (S, N)."""
    shape = (int(shoppers.max(initial=0)) + 1, item_count)
    matrix = sparse.csc_matrix((np.ones(len(items), np.float32), (shoppers, items)), shape=shape)
    matrix.sum_duplicates()
    norms = np.sqrt(np.maximum(np.diff(matrix.indptr), 1))
    matrix.data[:] = 1.0 / np.repeat(norms, np.diff(matrix.indptr))
    return matrix
