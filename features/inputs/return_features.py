"""What the chance that a shopper comes back is read from: recency, frequency and rhythm of what the store holds.

The gateway calls it for the shopper of one request, training for each moment that it asks about.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from features.inputs.transform import DAY_S, Floats
from features.schema import RECENT_EVENTS, RETURN_FEATURES, VISIT_GAP_S, EventType

WINDOWS_DAYS = (7, 28, 91)
LONGEST_DAYS = 365.0


def return_features(
    types: npt.NDArray[np.integer[Any]],
    ages_s: npt.NDArray[np.floating[Any]],
    own_ages_s: npt.NDArray[np.floating[Any]],
    baskets: float,
) -> Floats:
    """float32 (`RETURN_FEATURES`,) of one shopper.

    Args:
        types, ages_s: (n,) the newest events, oldest first; at most `RECENT_EVENTS`.
        own_ages_s: (m,) how long ago each item bought was bought first.
        baskets: bought in all.
    """
    days = ages_s.astype(np.float64) / DAY_S
    away = float(days.min(initial=LONGEST_DAYS))
    starts = np.concatenate([[True], -np.diff(ages_s) > VISIT_GAP_S]) if days.size else np.zeros(0, np.bool_)
    gaps = -np.diff(days[starts])
    tenure = max(days.max(initial=0.0), own_ages_s.max(initial=0.0) / DAY_S)
    gap = float(gaps.mean()) if gaps.size else 0.0
    spread = float(gaps.std()) if gaps.size > 1 else 0.0
    within = [days <= window for window in WINDOWS_DAYS]
    bought = types == EventType.PURCHASE
    plain = (
        away,
        float(starts.sum()),
        gap,
        spread,
        min(away / max(gap, 0.25), 100.0) if gap else 0.0,
        tenure,
        *(float(window.sum()) for window in within),
        *(float((window & bought).sum()) for window in within),
        baskets,
    )
    logs = np.log1p(plain)
    crossed = (logs[0] ** 2, logs[0] * logs[1], logs[4] ** 2)
    features = np.array([*logs, days.size >= RECENT_EVENTS, *crossed], np.float32)
    assert features.size == len(RETURN_FEATURES)
    return features
