"""Step three: from the model's best items to the page: new items merged in, and spread out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from server.catalogue_index import Mask, Rows
from server.loaded_release import LoadedRelease
from server.triton import FusionAnswer

Floats = npt.NDArray[np.float32]


def best_rows(answer: FusionAnswer, release: LoadedRelease, mask: Mask) -> tuple[Rows, Floats]:
    """Catalogue rows and scores, best first: the model's best and the allowed items younger than the release."""
    items = answer.top_items[answer.top_items >= 0]
    rows, scores = release.rows[items], answer.top_scores[answer.top_items >= 0]
    keep = mask[rows]
    rows, scores = rows[keep], scores[keep]
    new = release.new
    if new.rows.size:
        shown = mask[new.rows]
        if shown.any():
            new_scores = new.vectors[shown] @ answer.interest + new.biases[shown]
            rows, scores = np.concatenate([rows, new.rows[shown]]), np.concatenate([scores, new_scores])
            order = np.argsort(-scores, kind="stable")
            rows, scores = rows[order], scores[order]
    return rows, scores


def scores_of(answer: FusionAnswer, release: LoadedRelease, rows: Rows) -> Floats:
    """Scores of catalogue rows, float32 (n,), where `answer` was asked for their item indices as candidates.

    A new item is scored by its content, one that nobody knows as the average item.
    """
    indices, slots = release.indices(rows), release.slots(rows)
    average = float(release.mean_vector @ answer.interest) + release.mean_bias
    scores = np.full(rows.size, average, np.float32)
    known = indices >= 0
    scores[known] = answer.candidate_scores[: rows.size][known]
    new = slots >= 0
    scores[new] = release.new.vectors[slots[new]] @ answer.interest + release.new.biases[slots[new]]
    return scores


def spread_out(
    scores: Floats, count: int, diversity: float, similar_to: Callable[[int], Floats]
) -> npt.NDArray[np.int64]:
    """Places of `count` items by maximal marginal relevance (Carbonell and Goldstein 1998); 0 is the order given.

    Args:
        scores: float32 (n,), best first.
        diversity: weight of the greatest similarity to what is chosen already, against the score, 0 to 1.
        similar_to: similarity of the item at a place to all, float32 (n,).
    """
    count = min(count, scores.size)
    if diversity <= 0 or count <= 1:
        return np.arange(count)
    span = float(scores[0] - scores[-1])
    relevance = (scores - scores[-1]) / span if span > 0 else np.ones_like(scores)
    chosen = [0]
    nearest = similar_to(0)
    for _ in range(count - 1):
        worth = (1 - diversity) * relevance - diversity * nearest
        worth[chosen] = -np.inf
        best = int(worth.argmax())
        chosen.append(best)
        nearest = np.maximum(nearest, similar_to(best))
    return np.array(chosen)
