"""Step three: from the model's best items to the page: new items merged in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from server.catalogue.catalogue_index import Mask, Rows
from server.infer.triton import FusionAnswer
from server.releases.loaded_release import LoadedRelease

Floats = npt.NDArray[np.float32]


def best_rows(answer: FusionAnswer, release: LoadedRelease, mask: Mask) -> tuple[Rows, Floats]:
    """Catalogue rows and scores, best first: the model's best and the allowed items younger than the release.

    Where the model knows more items than it returned, the list ends with the last that it did.
    Rows that came into the catalogue after the mask was made are not allowed.
    """
    items, scores = answer.top_items, answer.top_scores
    if not more_is_known(answer):
        known = np.count_nonzero(items >= 0)
        items, scores = items[:known], scores[:known]
    rows = release.rows[items]
    keep = mask[rows]
    if not keep.all():
        rows, scores = rows[keep], scores[keep]
    new = release.new
    if new.rows.size:
        shown = new.rows < mask.size
        shown[shown] = mask[new.rows[shown]]
        if shown.any():
            new_scores = new.vectors[shown] @ answer.interest + new.biases[shown]
            rows, scores = np.concatenate([rows, new.rows[shown]]), np.concatenate([scores, new_scores])
            order = np.argsort(-scores, kind="stable")
            if more_is_known(answer):
                order = order[: int((scores >= answer.top_scores[-1]).sum())]
            rows, scores = rows[order], scores[order]
    return rows, scores


def in_one_order(parts: Sequence[tuple[float, Rows, Floats]]) -> tuple[Rows, Floats, Floats]:
    """Rows, scores and boosts, best sum of both first, of parts that have one boost each and are in order themselves.

    Whoever is among the best k of all is among the best k of its part, so the best k of each are enough.
    """
    if len(parts) == 1:
        boost, rows, scores = parts[0]
        return rows, scores, np.full(rows.size, boost, np.float32)
    rows, scores = (np.concatenate([part[place] for part in parts]) for place in (1, 2))
    boosts = np.concatenate([np.full(part[1].size, part[0], np.float32) for part in parts])
    order = np.argsort(-(scores + boosts), kind="stable")
    return rows[order], scores[order], boosts[order]


def last_score(scores: Floats, answer: FusionAnswer, release: LoadedRelease) -> float:
    """A score for allowed rows that have no vector yet, a moment after they came: the average item's, or the last."""
    average = float(release.mean_vector @ answer.interest) + release.mean_bias
    return min(average, float(scores[-1])) if scores.size else average


def more_is_known(answer: FusionAnswer) -> bool:
    """Whether the model may have left out items that it is allowed to recommend: its list is full, without padding."""
    return bool(answer.top_items[-1] >= 0)


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
