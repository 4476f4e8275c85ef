"""Recommend: hydrate ▶ infer ▶ select, from the highest step of the ladder that is there.

full ▶ recent events only ▶ popular in the segment ▶ popular. What fails below is answered from the next step; an
answer is empty only where filter or catalogue leave nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from features.schema import TOP_ITEMS, Tier
from features.shopper import Shopper
from server.allowed_rows import allowed_rows
from server.catalogue_index import Mask, Rows
from server.deadline import Deadline
from server.errors import ModelUnavailable
from server.filters import Excluded, removed_counts, without
from server.hydrate import fusion_request, no_candidates
from server.loaded_release import LoadedRelease
from server.placement_rules import lay_out, placed_pins
from server.queries import Reason, Recommendation, RecommendQuery, Strand
from server.selection import completed, explain, spread_out
from server.shop import Shop
from server.triton import FusionRequest

LOG = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]


async def recommend(shop: Shop, query: RecommendQuery, deadline: Deadline) -> Recommendation:
    """Items for a shopper, best first, all of them allowed by the filter."""
    while True:
        release = shop.releases.current
        shopper = await shop.shopper(query.shopper, release.number if release else 0, deadline)
        left_out = await shop.left_out(shopper, query.shopper, query.filter, deadline)
        page = _Page(shop, query, shopper, left_out)
        if release is None or not shopper.known or not page.mask.any():
            return page.popular(release)
        try:
            return await page.by_model(release, deadline)
        except ModelUnavailable as error:
            if shop.releases.current is release:
                LOG.debug("answering without the model: %s", error)
                return _Page(shop, query, shopper, left_out).popular(release)  # the catalogue may have grown meanwhile
        # The release was replaced meanwhile; ask its successor.


class _Page:
    """One answer in the making, by the catalogue and the rules of the moment when it is made."""

    def __init__(self, shop: Shop, query: RecommendQuery, shopper: Shopper, left_out: Excluded) -> None:
        self._shop = shop
        self._query = query
        self._shopper = shopper
        self._left_out = left_out
        rules = shop.rules.at(query.placement, query.shopper.now_ms)
        self._allowed = allowed_rows(shop.masks.of(query.shopper.now_ms, query.filter, rules), left_out)
        self.mask = self._allowed.mask
        """Rows of the catalogue that may be shown."""
        self._pins = placed_pins(rules.pins, shop.index, self.mask, query.page_size) if rules.pins else []

    async def by_model(self, release: LoadedRelease, deadline: Deadline) -> Recommendation:
        """From the fusion of both strands, or of the recent events alone."""
        shopper, index = self._shopper, self._shop.index
        requests = self._allowed.requests(shopper, release, index)
        strands = []
        if self._query.explain:
            bits = self._allowed.bits(release)[0]
            strands = [
                fusion_request(
                    shopper,
                    release,
                    index,
                    allowed=bits,
                    candidates=no_candidates(),
                    long_term=long_term,
                    recent=not long_term,
                )
                for long_term in (True, False)
            ]
        answers = await self._shop.model.fuse(*requests, *strands, deadline=deadline)
        found = self._allowed.best(answers[: len(requests)], release)
        rows, scores, boosts = self._chosen(*found, release)
        reasons: list[Reason | None] = []
        if self._query.explain:
            alone = answers[len(requests) :]
            reasons.extend(explain(rows, scores, shopper, release, index, answers[0], *alone))
        mask = without(self.mask, self._pinned_rows)
        rows, scores = completed(rows, scores + boosts, self._query.page_size, mask, answers[0], release)
        return self._answer(
            rows,
            scores,
            tier=Tier.FULL if shopper.interest else Tier.RECENT,
            request=requests[0],
            long_term_weight=float(answers[0].long_weight[0]),
            reasons=reasons,
        )

    def popular(self, release: LoadedRelease | None) -> Recommendation:
        """What is popular in the page's category, in the shopper's country, in the shop."""
        index = self._shop.index
        country = self._shopper.profile.country
        page_category = self._query.shopper.context.page_category
        category = index.in_category(page_category) if page_category else None
        count = TOP_ITEMS if self._query.diversity else self._query.page_size + len(self._pins)

        def best(mask: Mask) -> tuple[Rows, Floats, bool]:
            return self._shop.popular.current.best(f"country:{country}" if country else "", category, mask, count)

        rows, scores, boosts, chosen = self._allowed.most_popular(best)
        rows, scores, boosts = self._chosen(rows, scores, boosts, release)
        return self._answer(
            rows,
            scores + boosts,
            tier=Tier.SEGMENT if chosen else Tier.POPULAR,
            request=None,
            long_term_weight=None,
            reasons=[Reason(Strand.POPULAR)] * rows.size if self._query.explain else [],
        )

    @property
    def _pinned_rows(self) -> Rows:
        return np.array([row for _, row in self._pins], np.int32)

    def _chosen(
        self, rows: Rows, scores: Floats, boosts: Floats, release: LoadedRelease | None
    ) -> tuple[Rows, Floats, Floats]:
        """What fills a page, without what is pinned."""
        if self._pins:
            own = ~np.isin(rows, self._pinned_rows)
            rows, scores, boosts = rows[own], scores[own], boosts[own]
        places = self._spread(rows, scores + boosts, release)
        return rows[places], scores[places], boosts[places]

    def _spread(self, rows: Rows, scores: Floats, release: LoadedRelease | None) -> npt.NDArray[np.int64]:
        similar_to: Callable[[int], Floats]
        if release is not None and self._query.diversity:
            units = release.unit_vectors(rows)

            def similar_to(place: int) -> Floats:
                similarity: Floats = units @ units[place]
                return similarity
        else:

            def similar_to(place: int) -> Floats:
                return self._shop.index.content_similarity(int(rows[place]), rows)

        return spread_out(scores, self._query.page_size, self._query.diversity, similar_to)

    def _answer(
        self,
        rows: Rows,
        scores: Floats,
        *,
        tier: Tier,
        request: FusionRequest | None,
        long_term_weight: float | None,
        reasons: list[Reason | None],
    ) -> Recommendation:
        shopper = self._shopper
        page = lay_out(rows.size, [position for position, _ in self._pins], self._query.page_size)
        pinned = [is_pin for is_pin, _ in page]
        shown = [self._pins[place][1] if is_pin else int(rows[place]) for is_pin, place in page]
        item_ids = [self._shop.index.item_ids[row] for row in shown]
        explained = dict(enumerate(reasons))
        answer = self._shop.remember(
            self._query.shopper,
            shopper,
            tier,
            request,
            options=_options(self._query),
            placement=self._query.placement,
            item_ids=item_ids,
        )
        return Recommendation(
            item_ids=item_ids,
            scores=[0.0 if is_pin else float(scores[place]) for is_pin, place in page],
            reasons=[None if is_pin else explained.get(place) for is_pin, place in page],
            pinned=pinned,
            tier=tier,
            release=answer.release,
            long_term_weight=long_term_weight,
            last_event_ms=shopper.last_event_ms,
            encoded_through_ms=shopper.interest.encoded_through_ms if request and shopper.interest else None,
            filter_counts=self._filter_counts() if len(page) < self._query.page_size else [],
            attribution_token=answer.attribution_token,
            long_term_stale=shopper.interest_stale,
        )

    def _filter_counts(self) -> list[tuple[str, int]]:
        shop, query = self._shop, self._query
        now_ms = query.shopper.now_ms
        sellable, _ = shop.sellable.mask(now_ms, allow_age_restricted=query.filter.allow_age_restricted)
        blocks = shop.rules.at(query.placement, now_ms).blocks
        return removed_counts(shop.index, sellable, query.filter, self._left_out, blocks)


def _options(query: RecommendQuery) -> dict[str, Any]:
    """What the request asked for beyond shopper and placement, fields that were not set left out."""
    named = ((field.name, getattr(query.filter, field.name)) for field in fields(query.filter))
    chosen = {name: value for name, value in named if value not in (None, False, ())}
    return {"filter": chosen, "page_size": query.page_size, "diversity": query.diversity}
