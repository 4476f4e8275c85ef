"""Calibrates scores: the chance of each type of event with an item within `OUTCOME_HOURS` of a moment.

The moments lie between validation and test and the model is the one that has not learned from them. Items are those
that a caller would rank: the model's best, the shopper's own, popular ones, and any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.inputs.outcome_features import outcome_features, relative_scores
from features.inputs.probabilities import Logistic
from features.inputs.transform import Floats
from features.schema import OUTCOME_HOURS, SEQUENCE_TYPES, TOP_ITEMS, EventType
from training.asked import acts_before, asked_moments
from training.dataset import Log
from training.evaluate import CHUNK
from training.fusion import FusionModel
from training.logistic import fit_logistic
from training.moments import Longs, Moments
from training.scoring import ModelScorer

WINDOW_MS = OUTCOME_HOURS * 3_600_000
MOMENTS = 4000
"""Moments that a calibration is fitted on, at most."""
LEAST = 30
"""Events of a type among their candidates, with fewer of which it is left out."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Shelves:
    """How many items of each kind a moment is asked about, beside all the shopper's own."""

    best: int = 40
    popular: int = 20
    any: int = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The items of one moment with what is known of each.

    row: the moment's. items: (C,). features: float32 (C, `OUTCOME_FEATURES`). best_first: (C,) place in the model's
    order, counted up to the best that were asked for. own, drawn: bool (C,), which are of the shopper's own recent
    events and purchases, and drawn from all items.
    """

    row: int
    items: Longs
    features: Floats
    best_first: Longs
    own: Bools
    drawn: Bools


def calibrate(model: FusionModel, log: Log, popularity: Floats, from_ms: int, to_ms: int) -> dict[EventType, Logistic]:
    """A logistic model for each type of event that happens often enough.

    Args:
        popularity: (N,) of `outcome_features.relative_popularity`, as of `from_ms`.
        from_ms, to_ms: moments from here, whose windows end before there.
    """
    moments = asked_moments(log, from_ms, to_ms - WINDOW_MS, MOMENTS, seed=1)
    if not len(moments):
        return {}
    asked = list(candidates(model, log, moments, popularity, Shelves()))
    features = np.concatenate([part.features for part in asked])
    fitted = {}
    for kind, came in outcomes(log, moments, asked).items():
        if LEAST <= came.sum() < came.size:
            fitted[kind] = fit_logistic(features, came)
    return fitted


def candidates(
    model: FusionModel, log: Log, moments: Moments, popularity: Floats, shelves: Shelves
) -> Iterator[Candidates]:
    """The items that each moment is asked about."""
    rng = np.random.default_rng(2)
    scorer = ModelScorer(model, log)
    popular = np.argsort(-popularity, kind="stable")[: shelves.popular]
    count = log.item_count
    for at in range(0, len(moments), CHUNK):
        part = moments.take(np.arange(at, min(at + CHUNK, len(moments))))
        scores = scorer(part)
        kept = min(TOP_ITEMS, count)
        top = np.argpartition(-scores, kept - 1, axis=1)[:, :kept]
        best = np.take_along_axis(scores, top, axis=1)
        relative = relative_scores(scores, best)
        for row, (acts, _) in enumerate(acts_before(log, part)):
            first = top[row, np.argsort(-best[row], kind="stable")[: shelves.best]]
            own = np.concatenate([acts.items, acts.own_items])
            drawn = rng.integers(0, count, shelves.any)
            items = np.unique(np.concatenate([first, popular, drawn, own[own >= 0]])).astype(np.int64)
            yield Candidates(
                row=at + row,
                items=items,
                features=outcome_features(items, relative[row, items], popularity[items], acts),
                best_first=_places(items, first),
                own=np.isin(items, own),
                drawn=np.isin(items, drawn),
            )


def _places(items: Longs, first: Longs) -> Longs:
    """(C,) the place of each item in `first`, its length where it is not there."""
    order = np.argsort(first)
    at = order[np.minimum(np.searchsorted(first, items, sorter=order), len(first) - 1)]
    return np.where(first[at] == items, at, len(first))


def outcomes(log: Log, moments: Moments, asked: Sequence[Candidates]) -> Mapping[EventType, Bools]:
    """By type of event, whether each candidate had one within the window, flat in the order of `asked`."""
    starts = log.rows_before(moments.shoppers, moments.times_ms)
    ends = log.rows_before(moments.shoppers, moments.times_ms + WINDOW_MS)
    came: dict[EventType, list[Bools]] = {kind: [] for kind in SEQUENCE_TYPES}
    for part in asked:
        after = slice(starts[part.row], ends[part.row])
        items, types = log.items[after], log.types[after]
        for kind, found in came.items():
            found.append(np.isin(part.items, items[types == kind]))
    return {kind: np.concatenate(found) for kind, found in came.items()}
