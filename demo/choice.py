"""How an item is chosen: an occasion first, then one of its items by popularity and the shopper's taste.

The oracle uses the same formulas, so its probabilities are the ones that made the events.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from demo.catalogue import WEEK_DAYS, Catalogue, Floats, Ints
from demo.shoppers import Shoppers

COMPARING = 0.3
"""Share of taste in what is looked at for an intent; what is bought follows it in full."""
BROWSING = 0.8
"""The same for what is looked at without one."""
VIEWED_PENALTY = np.log(0.08)
"""What was just looked at and not taken is rarely bought after all."""
BLOCK = 65_536


class Chooser:
    """Draws items for the shoppers of one chunk."""

    def __init__(self, catalogue: Catalogue, shoppers: Shoppers, days: int, start_day_of_year: int) -> None:
        self.catalogue = catalogue
        self.shoppers = shoppers
        self.popularity = catalogue.log_popularity(days // WEEK_DAYS + 1)
        weeks = np.arange(self.popularity.shape[0]) * WEEK_DAYS + start_day_of_year
        self.season = catalogue.occasions.seasonal(weeks.astype(float))  # (weeks, K)
        self.lasting = shoppers.occasion_logits(catalogue.occasions)  # (S, K)

    def occasions(self, rng: np.random.Generator, shopper: Ints, day: Ints, lasting: float) -> Ints:
        """(n,) an occasion for each row; `lasting` is the weight of the shopper's lasting interest."""
        chosen = np.empty(shopper.size, np.int64)
        for low in range(0, shopper.size, BLOCK):
            rows = slice(low, low + BLOCK)
            logits = self.season[day[rows] // WEEK_DAYS] + lasting * self.lasting[shopper[rows]]
            chosen[rows] = sample(rng, logits)
        return chosen

    def utilities(self, items: Ints, shopper: Ints, day: Ints, strength: float | Floats) -> Floats:
        """(n, len(items)) logits of each item for each row; minus infinity before an item's launch."""
        taste = self.shoppers.taste[shopper] @ self.catalogue.style[items].T + self.catalogue.static[items]
        return np.asarray(self.popularity[:, items][day // WEEK_DAYS] + np.reshape(strength, (-1, 1)) * taste)

    def items(
        self,
        rng: np.random.Generator,
        occasion: Ints,
        shopper: Ints,
        day: Ints,
        strength: Floats,
        *,
        avoid: tuple[Ints, Ints] | None = None,
        only: npt.NDArray[np.bool_] | None = None,
    ) -> Ints:
        """(n,) an item of each row's occasion, -1 where none can be had.

        Args:
            strength: (n,) how much taste counts.
            avoid: (rows, items) that were looked at already.
            only: (N,) items that may be drawn.
        """
        chosen = np.full(occasion.size, -1, np.int64)
        avoid_rows, avoid_items = avoid if avoid is not None else (np.empty(0, np.int64), np.empty(0, np.int64))
        matches = self.catalogue.occasion[avoid_items] == occasion[avoid_rows]
        avoid_rows, avoid_items = avoid_rows[matches], avoid_items[matches]
        avoid_order = np.argsort(occasion[avoid_rows], kind="stable")
        avoid_rows, avoid_items = avoid_rows[avoid_order], avoid_items[avoid_order]
        order = np.argsort(occasion, kind="stable")
        keys = np.arange(len(self.catalogue.members) + 1)
        bounds = np.searchsorted(occasion[order], keys)
        avoid_bounds = np.searchsorted(occasion[avoid_rows], keys)
        local = np.empty(occasion.size, np.int64)
        for index, items in enumerate(self.catalogue.members):
            rows = order[bounds[index] : bounds[index + 1]]
            if not rows.size or not items.size:
                continue
            logits = self.utilities(items, shopper[rows], day[rows], strength[rows])
            if only is not None:
                logits = np.where(only[items], logits, -np.inf)
            local[rows] = np.arange(rows.size)
            part = slice(avoid_bounds[index], avoid_bounds[index + 1])
            logits[local[avoid_rows[part]], self.catalogue.slot[avoid_items[part]]] += VIEWED_PENALTY
            drawn = sample(rng, logits)
            chosen[rows] = np.where(drawn >= 0, items[drawn], -1)
        return chosen


def sample(rng: np.random.Generator, logits: Floats) -> Ints:
    """(n,) one column of each row of `logits` (n, m) by softmax; -1 where every logit is minus infinity."""
    best = logits.max(axis=1, keepdims=True)
    possible = np.isfinite(best[:, 0])
    weights = np.exp(logits - np.where(np.isfinite(best), best, 0.0))
    total = np.cumsum(weights, axis=1)
    level = rng.random((logits.shape[0], 1)) * total[:, -1:]
    column = np.minimum((total <= level).sum(axis=1), logits.shape[1] - 1)
    return np.where(possible, column, -1)
