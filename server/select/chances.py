"""Chances that a release can tell: of an event with an item, and that a shopper comes back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from features.inputs.outcome_features import Acts, outcome_features, relative_scores
from features.inputs.return_features import return_features
from features.inputs.shopper import Shopper
from features.inputs.transform import Floats
from features.schema import OWN_ITEMS, EventType
from server.catalogue.catalogue_index import CatalogueIndex, Rows
from server.infer.triton import FusionAnswer
from server.releases.loaded_release import LoadedRelease


def outcome_chances(
    kind: EventType,
    rows: Rows,
    scores: Floats,
    shopper: Shopper,
    release: LoadedRelease,
    index: CatalogueIndex,
    answer: FusionAnswer,
) -> npt.NDArray[np.float64] | None:
    """The chance of that event with the item of each catalogue row, (n,); None where the release cannot tell.

    Args:
        scores: (n,) of the rows. answer: the model's with every item allowed.
    """
    model = release.probabilities.outcomes.get(kind)
    best = answer.top_scores[answer.top_items >= 0]
    if model is None or not best.size:
        return None
    indices = release.indices(rows)
    popularity = np.where(indices >= 0, release.popularity[np.maximum(indices, 0)], 0.0)
    features = outcome_features(rows, relative_scores(scores, best), popularity, acts_of(shopper, index))
    return model.probability(features)


def return_chance(shopper: Shopper, release: LoadedRelease) -> float | None:
    """The chance of another visit within `RETURN_DAYS`; None where nothing is known or the release cannot tell."""
    model = release.probabilities.comes_back
    if model is None or not shopper.known:
        return None
    first_s = np.array([_age_s(shopper, time_ms) for time_ms in shopper.purchases.first(OWN_ITEMS).first_ms])
    features = return_features(_types(shopper), _ages_s(shopper), first_s, float(shopper.basket_count))
    return float(model.probability(features[None, :])[0])


def acts_of(shopper: Shopper, index: CatalogueIndex) -> Acts:
    """What the shopper did, items as catalogue rows."""
    bought = shopper.purchases.first(OWN_ITEMS)
    return Acts(
        items=index.rows(shopper.events.item_ids),
        types=_types(shopper),
        ages_s=_ages_s(shopper),
        own_items=index.rows(bought.item_ids),
        own_counts=np.array(bought.counts, np.float64),
        own_ages_s=np.array([_age_s(shopper, time_ms) for time_ms in bought.last_ms]),
        baskets=float(shopper.basket_count),
    )


def _types(shopper: Shopper) -> npt.NDArray[np.int32]:
    return np.array(shopper.events.types, np.int32)


def _ages_s(shopper: Shopper) -> npt.NDArray[np.float64]:
    return np.array([_age_s(shopper, time_ms) for time_ms in shopper.events.times_ms])


def _age_s(shopper: Shopper, time_ms: int) -> float:
    """Seconds ago, never negative."""
    return max(shopper.now_ms - time_ms, 0) / 1000
