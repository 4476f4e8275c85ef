"""Step three: from the model's best items to the page: new items merged in, and what is shown explained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from features.shopper import Shopper
from server.catalogue_index import CatalogueIndex, Mask, Rows
from server.loaded_release import LoadedRelease, unit_length
from server.queries import Reason, Strand
from server.triton import FusionAnswer

Floats = npt.NDArray[np.float32]

MAX_REASONS = 3


def best_rows(answer: FusionAnswer, release: LoadedRelease, mask: Mask) -> tuple[Rows, Floats]:
    """Catalogue rows and scores, best first: the model's best and the allowed items younger than the release.

    Where the model knows more items than it returned, the list ends with the last that it did.
    Rows that came into the catalogue after the mask was made are not allowed.
    """
    items = answer.top_items[answer.top_items >= 0]
    rows, scores = release.rows[items], answer.top_scores[answer.top_items >= 0]
    keep = mask[rows]
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
    rows, scores = (np.concatenate([part[place] for part in parts]) for place in (1, 2))
    boosts = np.concatenate([np.full(part[1].size, part[0], np.float32) for part in parts])
    if len(parts) > 1:
        order = np.argsort(-(scores + boosts), kind="stable")
        rows, scores, boosts = rows[order], scores[order], boosts[order]
    return rows, scores, boosts


def last_score(scores: Floats, answer: FusionAnswer, release: LoadedRelease) -> float:
    """A score for allowed rows that have no vector yet, a moment after they came: the average item's, or the last."""
    average = float(release.mean_vector @ answer.interest) + release.mean_bias
    return min(average, float(scores[-1])) if scores.size else average


def more_is_known(answer: FusionAnswer) -> bool:
    """Whether the model may have left out items that it is allowed to recommend: its list is full."""
    return bool((answer.top_items >= 0).all())


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


def explain(
    rows: Rows,
    scores: Floats,
    shopper: Shopper,
    release: LoadedRelease,
    index: CatalogueIndex,
    answer: FusionAnswer,
    long_term: FusionAnswer,
    recent: FusionAnswer,
) -> list[Reason]:
    """Why each row is here: the part that lifts its score furthest above the average item's.

    Args:
        long_term, recent: what the model answers when it sees that strand alone.
    """
    indices, slots = release.indices(rows), release.slots(rows)
    vectors, biases = np.zeros((rows.size, release.interest_dim), np.float32), np.zeros(rows.size, np.float32)
    vectors[indices >= 0], biases[indices >= 0] = (
        part[indices[indices >= 0]] for part in (release.vectors, release.biases)
    )
    vectors[slots >= 0], biases[slots >= 0] = (
        part[slots[slots >= 0]] for part in (release.new.vectors, release.new.biases)
    )
    lift = vectors - release.mean_vector  # (n, D)
    weight = float(answer.long_weight[0])
    repeat = np.where(indices >= 0, scores - (vectors @ answer.interest + biases), 0.0)
    taste = lift @ answer.interest
    by_long, by_recent = weight * (lift @ long_term.interest), (1 - weight) * (lift @ recent.interest)
    strands = np.where(by_long >= by_recent, Strand.LONG_TERM, Strand.RECENT)
    strands = np.where(biases - release.mean_bias > taste, Strand.POPULAR, strands)
    again = repeat > np.maximum(taste, biases - release.mean_bias)
    bought = np.array([index.item_ids[row] in shopper.bought_ms for row in rows], np.bool_)
    strands = np.where(again, np.where(bought, Strand.REPEAT, Strand.RECENT), strands)
    because = _because(rows, shopper, release, index, answer)
    return [Reason(Strand(int(strand)), ids) for strand, ids in zip(strands, because, strict=True)]


def _because(
    rows: Rows, shopper: Shopper, release: LoadedRelease, index: CatalogueIndex, answer: FusionAnswer
) -> list[tuple[str, ...]]:
    """For each row the recent items that speak most for it: the event's weight times their cosine, summed by item.

    Cosines are taken from the average item, so that an item speaks for its own kind and not for all.
    """
    if not shopper.events:
        return [()] * rows.size
    ids = [event.item_id for event in shopper.events]
    weights = answer.recent_weights[-len(ids) :]
    names, place = np.unique(np.array(ids, object), return_inverse=True)
    total = np.bincount(place, weights=weights, minlength=names.size)
    similarity = _from_average(rows, release) @ _from_average(index.rows(list(names)), release).T  # (n, items)
    speaks = similarity * total
    order = np.argsort(-speaks, axis=1, kind="stable")[:, :MAX_REASONS]
    return [tuple(str(names[item]) for item in line if speaks[row, item] > 0) for row, line in enumerate(order)]


def _from_average(rows: Rows, release: LoadedRelease) -> Floats:
    """Directions from the average item to catalogue rows, float32 (n, D); zeros for items without a vector."""
    units = release.unit_vectors(rows)
    offsets = np.where(units.any(axis=1, keepdims=True), units - release.mean_unit, 0.0)
    directions: Floats = unit_length(offsets.astype(np.float32))
    return directions
