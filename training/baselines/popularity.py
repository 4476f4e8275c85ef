"""What is popular, and what the shopper had most often."""

from __future__ import annotations

import numpy as np

from features.schema import EventType
from training.baselines.baseline import Floats, Setting
from training.baselines.history import dense, item_rows
from training.evaluate import Scorer, Stage, events_before
from training.moments import Moments, popularity_scores


def fit_popularity(stage: Stage, setting: Setting) -> Scorer:
    """The same items for everybody: moments that took them, halved with every `half_life_days` of their age."""
    popular = popularity_scores(stage.moments, stage.log.item_count, setting["half_life_days"]).astype(np.float32)
    return lambda asked: np.tile(popular, (len(asked), 1))


def fit_personal_frequency(stage: Stage, setting: Setting) -> Scorer:
    """Visits in which the shopper bought the item; one with other events on it alone counts `others`.

    With what is popular behind it this is GP-TopFreq, hard to beat where people buy again (arXiv 2109.14233).
    """
    log = stage.log

    def score(asked: Moments) -> Floats:
        row, event = events_before(log, asked)
        other = log.types[event] != EventType.PURCHASE
        order = np.argsort(other, kind="stable")  # a purchase is found before the other events of its visit
        visits = log.visits.max(initial=0) + 1
        keys = (row * visits + log.visits[event]) * log.item_count + log.items[event]
        _, first = np.unique(keys[order], return_index=True)
        first = order[first]
        weights = np.where(other[first], setting["others"], 1.0)
        return dense(item_rows(weights, row[first], log.items[event[first]], log, asked))

    return score
