"""Why each item is in an answer, from the model itself: the strand that carried it, and what it would be without.

The model is asked again, in one batch: with either strand alone, and without the events on each item that the shopper
turned to lately. What lets an item's score fall furthest is what speaks for it. What the long-term vector has read
cannot be left out of it here; there the items nearest to the answered one speak for it, in the model's own space.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from features.inputs.shopper import Shopper
from server.catalogue.catalogue_index import CatalogueIndex, Rows
from server.deadline import Deadline
from server.hydrate.fusion_request import FusionRequest, candidates_of
from server.infer.triton import FusionAnswer
from server.queries import Reason, Strand
from server.releases.loaded_release import LoadedRelease, unit_length
from server.select.selection import Floats, scores_of
from server.shop import Shop

MAX_REASONS = 3
MAX_ASKED = 30
LEAST_FALL = 0.01
"""A score, in nats, that falls by less does not name an event."""
LEAST_KINSHIP = 0.1
"""Nor does a smaller cosine."""


async def reasons_of(
    shop: Shop,
    shopper: Shopper,
    release: LoadedRelease,
    rows: Rows,
    scores: Floats,
    answer: FusionAnswer,
    deadline: Deadline,
) -> list[Reason]:
    """A reason for each row of an answer; the newest `MAX_ASKED` items of the shopper's events may be named.

    Raises:
        ModelUnavailable: the model does not answer, or not in time: it scores the catalogue for each of them.
    """
    names = list(dict.fromkeys(reversed(shopper.events.item_ids)))[:MAX_ASKED]
    seen = [
        shopper.seen_by_model(long_term=True, recent=False),
        shopper.seen_by_model(long_term=False, recent=True),
        *(shopper.without_events_on(name) for name in names),
    ]
    asked = candidates_of(rows, release)
    requests = [FusionRequest(part, release, shop.index, allowed=b"\0", candidates=asked) for part in seen]
    long_term, recent, *without = await shop.model.fuse(*requests, deadline=deadline, dispensable=True)
    strands = _strands(rows, scores, shopper, release, shop.index, answer, long_term, recent)
    left = np.array([scores_of(part, release, rows) for part in without]).reshape(len(names), rows.size)
    falls = scores[None, :] - left  # (names, n)
    because = _largest(names, falls, LEAST_FALL)
    lasting = [row for row, strand in enumerate(strands) if strand == Strand.LONG_TERM and not because[row]]
    if lasting and shopper.interest:
        through_ms = shopper.interest.encoded_through_ms
        read = list(dict.fromkeys(event.item_id for event in shopper.events if event.time_ms <= through_ms))
        near = kinship(
            release.unit_vectors(shop.index.rows(read)), release.unit_vectors(rows[lasting]), release.mean_unit
        )
        for row, found in zip(lasting, _largest(read, near, LEAST_KINSHIP), strict=True):
            because[row] = found
    return [Reason(Strand(int(strand)), found) for strand, found in zip(strands, because, strict=True)]


def kinship(left: Floats, right: Floats, mean: Floats) -> Floats:
    """Cosines (n, m) between item vectors (n, D) and (m, D) of length 1, taken from their mean (D,) over all items.

    Seen from the average item, an item is near its own kind and not near all; one without a vector is near none.
    """
    left, right = (unit_length(np.where(part.any(axis=1, keepdims=True), part - mean, 0.0)) for part in (left, right))
    cosines: Floats = left @ right.T
    return cosines


def _largest(names: Sequence[str], values: Floats, least: float) -> list[tuple[str, ...]]:
    """For each column of values (names, n) the names with the largest, at most `MAX_REASONS`, none below `least`."""
    order = np.argsort(-values, axis=0, kind="stable")[:MAX_REASONS]
    return [tuple(names[name] for name in line if values[name, column] >= least) for column, line in enumerate(order.T)]


def _strands(
    rows: Rows,
    scores: Floats,
    shopper: Shopper,
    release: LoadedRelease,
    index: CatalogueIndex,
    answer: FusionAnswer,
    long_term: FusionAnswer,
    recent: FusionAnswer,
) -> npt.NDArray[np.int64]:
    """The part that lifts the score of each row furthest above the average item's, (n,) of `Strand`.

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
    return np.where(again, np.where(bought, Strand.REPEAT, Strand.RECENT), strands)
