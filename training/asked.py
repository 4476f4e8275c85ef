"""Moments at which somebody might ask about a shopper: most on a page, just after an event, the others at any time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from features.inputs.outcome_features import Acts
from features.schema import RECENT_EVENTS
from training.arrivals import known_then
from training.dataset import Log
from training.moments import Moments
from training.own_items import OwnItems

ON_PAGE = 0.75
"""Share of the moments that follow an event; what comes after it is not known to come."""


def asked_moments(log: Log, from_ms: int, to_ms: int, count: int, seed: int) -> Moments:
    """At most `count` moments of a half-open span without targets, in order of time; empty where nothing happened."""
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero((log.times_ms >= from_ms) & (log.times_ms < to_ms))
    rows = rng.choice(rows, min(int(count * ON_PAGE), len(rows)), replace=False)
    wanted = len(rows) * (1 - ON_PAGE) / ON_PAGE
    anybody = rng.integers(0, len(log.starts) - 1, int(wanted))
    any_ms = rng.integers(from_ms, max(to_ms, from_ms + 1), len(anybody))
    there = log.times_ms[log.starts[anybody]] < any_ms
    shoppers = np.concatenate([log.shoppers[rows], anybody[there]])
    times_ms = np.concatenate([log.times_ms[rows] + 1, any_ms[there]])
    order = np.lexsort((shoppers, times_ms))
    return Moments(
        shoppers=shoppers[order],
        times_ms=times_ms[order],
        targets=np.zeros(0, np.int32),
        offsets=np.zeros(len(order) + 1, np.int64),
    )


def acts_before(log: Log, moments: Moments) -> Iterator[tuple[Acts, npt.NDArray[np.float64]]]:
    """For each moment what its shopper was known to have done by then, and how many seconds ago each item bought was
    bought first."""
    known = known_then(log, moments)
    own = OwnItems.before(known, moments.times_ms)
    starts = np.maximum(known.log.starts[known.shoppers], known.ends - RECENT_EVENTS)
    for row, (start, end, now_ms) in enumerate(zip(starts, known.ends, moments.times_ms, strict=True)):
        bought = slice(own.offsets[row], own.offsets[row + 1])
        acts = Acts(
            items=known.log.items[start:end],
            types=known.log.types[start:end],
            ages_s=(now_ms - known.log.times_ms[start:end]) / 1000,
            own_items=own.items[bought],
            own_counts=own.counts[bought],
            own_ages_s=(now_ms - own.last_ms[bought]) / 1000,
            baskets=float(own.basket_counts[row]),
        )
        yield acts, ((now_ms - own.first_ms[bought]) / 1000)
