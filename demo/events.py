"""What happens on each visit, as rows of the event log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from demo.catalogue import Floats, Ints
from demo.choice import BROWSING, COMPARING, Chooser
from demo.visits import Needs, Visits

BUYS = 0.36
"""Chance that a visit of habit buys something beside what has run out."""
MORE_ITEMS = 0.5
"""Further items in such a basket, on average."""
INTENT_FOLLOWED = 0.88
"""Share of a visit's views and purchases that serve its intent; the others follow lasting interest."""
ANONYMOUS, SIGNS_IN = 0.12, 0.08
"""Shares of visits that stay without a user id, and that get one only when they buy or halfway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Items looked at or bought: one row each, `visit` ascending."""

    visit: Ints
    item: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """Views before the decision, the basket, and the moment between them (the first event of the basket)."""

    views: Draws
    bought: Draws
    decision_ms: Ints
    view_ms: Ints


def make_events(rng: np.random.Generator, chooser: Chooser, visits: Visits, needs: Needs) -> Happened:
    """What every visit looks at and buys."""
    count = visits.shopper.size
    looks = 1 + rng.poisson(np.where(visits.intent >= 0, 3.4, 2.4))
    views = _draw(rng, chooser, visits, np.repeat(np.arange(count), looks))
    baskets = ~visits.forced & (rng.random(count) < BUYS)
    sizes = np.where(baskets, 1 + rng.poisson(MORE_ITEMS, count), 0)
    bought = _draw(rng, chooser, visits, np.repeat(np.arange(count), sizes), views)
    bought = _owned_once(chooser, visits, bought, needs)
    gaps = 8_000 + rng.exponential(45_000.0, views.visit.size).astype(np.int64)
    elapsed = np.cumsum(gaps)
    starts = np.searchsorted(views.visit, np.arange(count + 1))
    before = np.concatenate([[0], elapsed])[starts[:-1]]
    view_ms = visits.start_ms[views.visit] + elapsed - gaps - before[views.visit]
    length = np.concatenate([[0], elapsed])[starts[1:]] - before
    return Happened(views=views, bought=bought, decision_ms=visits.start_ms + length + 20_000, view_ms=view_ms)


def _draw(rng: np.random.Generator, chooser: Chooser, visits: Visits, visit: Ints, seen: Draws | None = None) -> Draws:
    shopper, day, intent = visits.shopper[visit], visits.day[visit], visits.intent[visit]
    astray = (intent < 0) | (rng.random(visit.size) >= INTENT_FOLLOWED)
    occasion = intent.copy()
    occasion[astray] = chooser.occasions(rng, shopper[astray], day[astray], 1.0)
    if seen is None:
        item = chooser.items(rng, occasion, shopper, day, np.where(intent >= 0, COMPARING, BROWSING))
    else:
        item = chooser.items(rng, occasion, shopper, day, np.ones(visit.size), avoid=_pairs(visit, seen))
    return Draws(visit=visit[item >= 0], item=item[item >= 0])


def _pairs(visit: Ints, seen: Draws) -> tuple[Ints, Ints]:
    """(row of `visit`, item) for everything that the row's visit has looked at."""
    low, high = np.searchsorted(seen.visit, visit), np.searchsorted(seen.visit, visit, "right")
    counts = high - low
    rows = np.repeat(np.arange(visit.size), counts)
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return rows, seen.item[np.repeat(low, counts) + offsets]


def _owned_once(chooser: Chooser, visits: Visits, bought: Draws, needs: Needs) -> Draws:
    """Adds the needs, and drops a second purchase of what lasts and a second one in the same basket."""
    visit = np.concatenate([bought.visit, visits.need_visit])
    item = np.concatenate([bought.item, needs.item[needs.need]])
    lasts = chooser.catalogue.interval_days[item] == 0
    order = np.argsort(visit, kind="stable")
    visit, item, lasts = visit[order], item[order], lasts[order]
    owner = np.where(lasts, visits.shopper[visit], chooser.shoppers.size + visit)
    first = np.unique(owner * chooser.catalogue.size + item, return_index=True)[1]
    first.sort()
    return Draws(visit=visit[first], item=item[first])


def log_rows(
    rng: np.random.Generator,
    chooser: Chooser,
    visits: Visits,
    happened: Happened,
    first_visit: int,
    prices: Floats,
) -> pl.DataFrame:
    """Rows of `events.parquet`, not sorted, without noise."""
    count = visits.shopper.size
    numbers = pl.select(pl.int_range(first_visit, first_visit + count)).to_series()
    signing = rng.random(count)
    bought = np.zeros(count, bool)
    bought[happened.bought.visit] = True
    who = pl.DataFrame(
        {
            "visit": np.arange(count),
            "shopper": chooser.shoppers.ids().gather(visits.shopper),
            "session_id": pl.select(pl.format("session-{}", numbers)).to_series(),
            "known_from_ms": np.select(
                [signing < ANONYMOUS, signing < ANONYMOUS + SIGNS_IN],
                [np.iinfo(np.int64).max, np.where(bought, happened.decision_ms, visits.start_ms + 60_000)],
                0,
            ),
        }
    )
    parts = [
        *_before(rng, chooser, visits, happened, bought),
        *_basket(rng, happened, prices, first_visit),
    ]
    rows = pl.concat(parts, how="diagonal").join(who, on="visit", how="left", maintain_order="left")
    return rows.with_columns(
        event_id=pl.format("v{}-{}", pl.col("visit") + first_visit, pl.int_range(pl.len()).over("visit")),
        user_id=pl.when(pl.col("time_ms") >= pl.col("known_from_ms")).then("shopper"),
    )


def _before(
    rng: np.random.Generator,
    chooser: Chooser,
    visits: Visits,
    happened: Happened,
    bought: npt.NDArray[np.bool_],
) -> list[pl.DataFrame]:
    """Searches, impressions, clicks, views, favourites and abandoned carts."""
    views, view_ms = happened.views, happened.view_ms
    searches = np.flatnonzero((visits.intent >= 0) & (rng.random(visits.intent.size) < 0.3))
    names = pl.Series(chooser.catalogue.occasions.names).str.to_lowercase()
    clicked = rng.random(views.visit.size) < 0.07
    shown = np.repeat(np.flatnonzero(clicked), 4)
    beside = np.tile(np.arange(4) == 0, clicked.sum())
    occasion = chooser.catalogue.occasion[views.item[shown]]
    shopper, day = visits.shopper[views.visit[shown]], visits.day[views.visit[shown]]
    impressions = np.where(
        beside, views.item[shown], chooser.items(rng, occasion, shopper, day, np.full(shopper.size, COMPARING))
    )
    favourite = rng.random(views.visit.size) < 0.05
    left_in_cart = (rng.random(views.visit.size) < 0.04) & ~bought[views.visit]
    return [
        _frame("search", searches, None, visits.start_ms[searches] - 20_000).with_columns(
            query=names.gather(visits.intent[searches])
        ),
        _frame("impression", views.visit[shown], impressions, view_ms[shown] - 6_000),
        _frame("click", views.visit[clicked], views.item[clicked], view_ms[clicked] - 1_000),
        _frame("view", views.visit, views.item, view_ms),
        _frame("favourite", views.visit[favourite], views.item[favourite], view_ms[favourite] + 5_000),
        _frame("cart", views.visit[left_in_cart], views.item[left_in_cart], view_ms[left_in_cart] + 7_000),
    ]


def _basket(
    rng: np.random.Generator, happened: Happened, prices: Floats, first_visit: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The carts, one after the other from the decision on, and the purchase of all a minute after the last."""
    visit, item = happened.bought.visit, happened.bought.item
    bounds = np.searchsorted(visit, np.arange(happened.decision_ms.size + 1))
    place, size = np.arange(visit.size) - bounds[visit], np.diff(bounds)[visit]
    cart_ms = happened.decision_ms[visit] + place * 15_000
    paid_ms = happened.decision_ms[visit] + size * 15_000 + 45_000
    quantity = pl.Series("quantity", 1.0 + (rng.random(visit.size) < 0.1))
    price = pl.Series("price", prices[item])
    carts = _frame("cart", visit, item, cart_ms).with_columns(quantity, price)
    purchases = _frame("purchase", visit, item, paid_ms).with_columns(quantity, price)
    return carts, purchases.with_columns(order_id=pl.format("order-{}", pl.col("visit") + first_visit))


def _frame(kind: str, visit: Ints, item: Ints | None, time_ms: Ints) -> pl.DataFrame:
    return pl.DataFrame(
        {"visit": visit, "item": item, "time_ms": time_ms},
        schema={"visit": pl.Int64, "item": pl.Int64, "time_ms": pl.Int64},
    ).with_columns(event_type=pl.lit(kind))
