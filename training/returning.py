"""The chance that a shopper comes back: another visit within `RETURN_DAYS`, learned where that time has passed.

It is learned from the newer half of such moments: the first ones have short histories, since the log itself was young.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from features.inputs.probabilities import Logistic
from features.inputs.return_features import return_features
from features.inputs.transform import Floats
from features.schema import RETURN_DAYS, RETURN_FEATURES
from training.asked import acts_before, asked_moments
from training.dataset import Log
from training.logistic import base_rate, fit_logistic
from training.moments import DAY_MS, Moments

WINDOW_MS = RETURN_DAYS * DAY_MS
MOMENTS = 15_000
LEAST = 30
"""Moments of either kind, with fewer of which the base rate is all that is said."""


def fit_return(log: Log, to_ms: int) -> Logistic | None:
    """Learns from moments whose windows end before a time; None where there are none."""
    moments = moments_to_learn(log, to_ms)
    if not len(moments):
        return None
    came = comes_back(log, moments)
    if min(came.sum(), (~came).sum()) < LEAST:
        return base_rate(came, len(RETURN_FEATURES))
    return fit_logistic(features_of(log, moments), came)


def moments_to_learn(log: Log, to_ms: int) -> Moments:
    """The newer half of the time whose windows end before a time."""
    first, last = int(log.times_ms.min()), to_ms - WINDOW_MS
    return return_moments(log, (first + last) // 2 if last > first else last, last)


def return_moments(log: Log, from_ms: int, to_ms: int) -> Moments:
    """Moments of a half-open span; none where it is empty."""
    return asked_moments(log, from_ms, to_ms, MOMENTS if to_ms > from_ms else 0, seed=3)


def features_of(log: Log, moments: Moments) -> Floats:
    """float32 (E, `RETURN_FEATURES`)."""
    rows = [
        return_features(acts.types, acts.ages_s, first_s, acts.baskets) for acts, first_s in acts_before(log, moments)
    ]
    return np.stack(rows) if rows else np.zeros((0, len(RETURN_FEATURES)), np.float32)


def comes_back(log: Log, moments: Moments) -> npt.NDArray[np.bool_]:
    """Whether another visit than the one under way begins within the window, (E,)."""
    starts = log.rows_before(moments.shoppers, moments.times_ms)
    ends = log.rows_before(moments.shoppers, moments.times_ms + WINDOW_MS)
    last_visit = log.visits[np.maximum(ends - 1, 0)]
    current = _visit_under_way(log, moments, starts)
    came: npt.NDArray[Any] = (ends > starts) & (last_visit != current)
    return came


def _visit_under_way(log: Log, moments: Moments, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Number of the visit that the shopper's last event belongs to, -1 without one."""
    before = starts > log.starts[moments.shoppers]
    return np.where(before, log.visits[np.maximum(starts - 1, 0)], -1)
