"""What a shopper likes, by category: what the model expects in the long term, and what it heeds right now."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from features.inputs.shopper import Events, Shopper, ShopperQuery
from features.schema import RECENT_EVENTS, EventType, Tier
from server.catalogue.catalogue_index import CatalogueIndex, Rows
from server.deadline import Deadline
from server.errors import ModelUnavailable
from server.hydrate.fusion_request import NO_CANDIDATES, FusionRequest
from server.infer.triton import FusionAnswer
from server.queries import Change, Interest, Interests
from server.releases.loaded_release import LoadedRelease
from server.select.chances import return_chance
from server.shop import Shop

LOG = logging.getLogger(__name__)

LEVELS = 2
"""Category levels told apart."""
MOST = 20
"""Categories in one list."""
LEAST_SHARE = 0.005
"""Weaker categories are left out."""
LEAST_CHANGE = 0.05
"""Smaller differences between long-term and current strength are no change."""

HALF_LIFE_EVENTS = 5
_EVENT_WEIGHTS = {EventType.VIEW: 1.0, EventType.CLICK: 1.0, EventType.FAVOURITE: 2.0, EventType.CART: 3.0}
_PURCHASE_WEIGHT = 5.0


def by_model(answer: FusionAnswer, release: LoadedRelease, index: CatalogueIndex) -> list[Interest]:
    """Softmax over the model's best items, summed by category: where it expects the next event."""
    found = answer.top_items >= 0
    logits = answer.top_scores[found].astype(np.float64)
    weights = np.exp(logits - logits.max(initial=-np.inf)) if logits.size else logits
    return _shares(release.rows[answer.top_items[found]], weights, index)


def by_events(events: Events, weights: npt.NDArray[np.floating] | None, index: CatalogueIndex) -> list[Interest]:
    """The newest events by category; an event counts half for every `HALF_LIFE_EVENTS` that came after it.

    Args:
        weights: (events,) the model's weight of each event; by the kind of event where no model answers.
    """
    rows = index.rows(events.item_ids)
    if weights is None:
        kinds = (_EVENT_WEIGHTS.get(EventType(kind), _PURCHASE_WEIGHT) for kind in events.types)
        weights = np.fromiter(kinds, np.float64, len(events))
    weights = weights * 0.5 ** (np.arange(len(events))[::-1] / HALF_LIFE_EVENTS)
    return _shares(rows[rows >= 0], weights[rows >= 0], index)


def by_counts(item_ids: Sequence[str], counts: Sequence[int], index: CatalogueIndex) -> list[Interest]:
    """Purchases by category, for the long term where no model answers."""
    rows = index.rows(item_ids)
    return _shares(rows[rows >= 0], np.array(counts, np.float64)[rows >= 0], index)


def changes(long_term: Sequence[Interest], current: Sequence[Interest]) -> tuple[list[Change], list[Change]]:
    """Rising and fading categories, the largest difference first; none where one of the lists is empty."""
    if not long_term or not current:
        return [], []
    before, now = dict(long_term), dict(current)
    paths = dict.fromkeys([*before, *now])
    found = [(path, before.get(path, 0.0), now.get(path, 0.0)) for path in paths]
    found.sort(key=lambda change: -abs(change[2] - change[1]))
    rising = [change for change in found if change[2] - change[1] >= LEAST_CHANGE]
    fading = [change for change in found if change[1] - change[2] >= LEAST_CHANGE]
    return rising, fading


def _shares(rows: Rows, weights: npt.NDArray[np.floating], index: CatalogueIndex) -> list[Interest]:
    nodes = index.upper_nodes(LEVELS)[index.columns.node[rows]]
    mass = np.bincount(nodes, weights=weights, minlength=1)
    mass[0] = 0.0  # items without a category
    if mass.sum() <= 0:
        return []
    strengths = mass / mass.sum()
    order = np.argsort(-strengths, kind="stable")[:MOST]
    order = order[strengths[order] >= min(LEAST_SHARE, strengths.max())]
    kept = strengths[order] / strengths[order].sum()
    return [(index.paths[node], float(strength)) for node, strength in zip(order, kept, strict=True)]


async def interests_of(shop: Shop, query: ShopperQuery, deadline: Deadline) -> Interests:
    """Long-term interest from that strand alone, current interest by the weight of each event, and the balance."""
    release = shop.traffic.choose(query).release
    while True:
        shopper = await shop.shopper(query, release.number if release else 0, deadline)
        if release is None or not shopper.known:
            return _without_model(shop, shopper, release)
        try:
            return await _by_model(shop, shopper, release, deadline)
        except ModelUnavailable as error:
            if shop.releases.current is release:
                LOG.debug("interests without the model: %s", error)
                return _without_model(shop, shopper, release)
            release = shop.releases.current  # as in `recommend`: replaced meanwhile, or an arm


async def _by_model(shop: Shop, shopper: Shopper, release: LoadedRelease, deadline: Deadline) -> Interests:
    index = shop.index
    requests = [
        FusionRequest(seen, release, index, allowed=b"\0", candidates=NO_CANDIDATES)
        for seen in (shopper, shopper.seen_by_model(long_term=True, recent=False))
    ]
    both, long_term_alone = await shop.model.fuse(*requests, deadline=deadline)
    return Interests(
        long_term=by_model(long_term_alone, release, index) if shopper.interest else [],
        current=by_events(shopper.events, both.recent_weights[RECENT_EVENTS - len(shopper.events) :], index),
        return_probability=return_chance(shopper, release),
        long_term_weight=float(both.long_weight[0]),
        last_event_ms=shopper.last_event_ms,
        release=release.number,
        tier=Tier.FULL if shopper.interest else Tier.RECENT,
        long_term_stale=shopper.interest_stale,
    )


def _without_model(shop: Shop, shopper: Shopper, release: LoadedRelease | None) -> Interests:
    bought = shopper.purchases
    return Interests(
        long_term=by_counts(bought.item_ids, bought.counts, shop.index),
        current=by_events(shopper.events, None, shop.index),
        return_probability=None if release is None else return_chance(shopper, release),
        long_term_weight=None,
        last_event_ms=shopper.last_event_ms,
        release=0,
        tier=Tier.POPULAR,
        long_term_stale=shopper.interest_stale,
    )
