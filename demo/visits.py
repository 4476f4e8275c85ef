"""When shoppers come, what they come for, and what they have to buy again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from demo.catalogue import Floats, Ints
from demo.choice import Chooser
from demo.shoppers import Shoppers

DAY_MS = 86_400_000
INTENT_SHARE = 0.75
"""Visits that come for something in passing; the others follow lasting interest."""
INTENT_LASTING = 0.25
"""Weight of lasting interest in a passing intent: a gift or a holiday has little to do with it."""
INTENT_KEPT = 0.5
"""Chance that the next visit within `INTENT_KEPT_DAYS` still has the same intent."""
INTENT_KEPT_DAYS = 3
NEEDS = 0.6
"""Consumables that a shopper has taken to, on average."""
NEED_JITTER = 0.18
"""Spread of the logarithm of the time between two purchases of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Consumables taken to, one row each; the purchases of them are `need` (row), `day`."""

    shopper: Ints
    item: Ints
    interval_days: Floats
    need: Ints
    day: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Visits:
    """V visits in the order of (shopper, time).

    intent: (V,) occasion or -1.
    forced: (V,) made only because something ran out.
    need_visit: (purchases of needs,) the visit that each row of `Needs.need` falls into.
    """

    shopper: Ints
    day: Ints
    start_ms: Ints
    intent: Ints
    forced: npt.NDArray[np.bool_]
    need_visit: Ints


def make_needs(rng: np.random.Generator, chooser: Chooser, days: int) -> Needs:
    """What each shopper buys again and again, and on which days it runs out."""
    shoppers, consumable = chooser.shoppers, chooser.catalogue.interval_days > 0
    shopper = np.repeat(np.arange(shoppers.size), rng.poisson(NEEDS, shoppers.size))
    span = np.maximum(shoppers.left - shoppers.joined, 1)[shopper]
    since = shoppers.joined[shopper] + (0.7 * span * rng.random(shopper.size)).astype(np.int64)
    occasion = chooser.occasions(rng, shopper, since, 1.0)
    item = chooser.items(rng, occasion, shopper, since, np.ones(shopper.size), only=consumable)
    keep = item >= 0
    shopper, since, item = shopper[keep], since[keep], item[keep]
    pairs, first = np.unique(shopper * chooser.catalogue.size + item, return_index=True)
    shopper, since, item = shopper[first], since[first], item[first]
    interval = chooser.catalogue.interval_days[item] * rng.lognormal(0.0, 0.3, item.size)
    most = int(days / 5) + 2
    gaps = interval[:, None] * rng.lognormal(0.0, NEED_JITTER, (item.size, most))
    day = (since[:, None] + np.cumsum(gaps, axis=1) - gaps[:, :1]).astype(np.int64)
    need, column = np.nonzero(day < shoppers.left[shopper][:, None])
    day = day[need, column]
    once = np.unique(np.column_stack([need, day]), axis=0)
    return Needs(shopper=shopper, item=item, interval_days=interval, need=once[:, 0], day=once[:, 1])


def make_visits(
    rng: np.random.Generator, chooser: Chooser, needs: Needs, days: int, start_ms: int, *, intents: bool
) -> Visits:
    """Visits of habit, and those that a need forces where none of habit falls on its day."""
    shoppers = chooser.shoppers
    active = np.maximum(shoppers.left - shoppers.joined, 1)
    shopper = np.repeat(np.arange(shoppers.size), 1 + rng.poisson(shoppers.visits_per_day * active))
    day = _days(rng, shoppers, shopper, days, start_ms)
    habit = shopper * days + day
    due = needs.shopper[needs.need] * days + needs.day
    forced_keys = np.setdiff1d(due, habit)
    shopper = np.concatenate([shopper, forced_keys // days])
    day = np.concatenate([day, forced_keys % days])
    forced = np.arange(shopper.size) >= habit.size
    hour = np.mod(shoppers.hour[shopper] + 2.2 * rng.standard_normal(shopper.size), 24.0)
    time_ms = start_ms + day * DAY_MS + (hour * 3_600_000).astype(np.int64)
    order = np.lexsort((time_ms, shopper))
    shopper, day, time_ms, forced = shopper[order], day[order], time_ms[order], forced[order]
    keys = shopper * days + day
    return Visits(
        shopper=shopper,
        day=day,
        start_ms=time_ms,
        intent=_intents(rng, chooser, shopper, day, forced) if intents else np.full(shopper.size, -1),
        forced=forced,
        need_visit=np.searchsorted(keys, due),
    )


def _days(rng: np.random.Generator, shoppers: Shoppers, shopper: Ints, days: int, start_ms: int) -> Ints:
    """A day within each shopper's time, likelier on their part of the week and towards the holidays."""
    calendar = np.arange(days)
    weekday = (start_ms // DAY_MS + calendar + 3) % 7  # the epoch began on a Thursday
    day_of_year = (start_ms / DAY_MS + calendar) % 365.25
    season = 1.0 + 0.35 * np.exp(-(((day_of_year - 345) / 20) ** 2)) - 0.1 * (abs(day_of_year - 200) < 25)
    weights = season * np.stack([1.0 + 0.15 * (weekday < 4), 1.0 + 1.2 * (weekday >= 5)])  # (2, days)
    total = np.concatenate([np.zeros((2, 1)), np.cumsum(weights, axis=1)], axis=1)
    low = total[shoppers.weekend, shoppers.joined][shopper]
    high = total[shoppers.weekend, shoppers.left][shopper]
    level = low + rng.random(shopper.size) * (high - low)
    weekend = shoppers.weekend[shopper] == 1
    day = np.where(weekend, np.searchsorted(total[1], level, "right"), np.searchsorted(total[0], level, "right")) - 1
    return np.asarray(np.clip(day, shoppers.joined[shopper], shoppers.left[shopper] - 1))


def _intents(
    rng: np.random.Generator, chooser: Chooser, shopper: Ints, day: Ints, forced: npt.NDArray[np.bool_]
) -> Ints:
    """An occasion for each visit, -1 for none; one in two visits soon after another carries its intent on."""
    fresh = chooser.occasions(rng, shopper, day, INTENT_LASTING)
    fresh = np.where(forced | (rng.random(shopper.size) >= INTENT_SHARE), -1, fresh)
    soon = (np.diff(shopper, prepend=-1) == 0) & (np.diff(day, prepend=-99) <= INTENT_KEPT_DAYS)
    kept = soon & ~forced & (rng.random(shopper.size) < INTENT_KEPT)
    begins = np.maximum.accumulate(np.where(kept, 0, np.arange(shopper.size)))
    return np.asarray(fresh[begins])
