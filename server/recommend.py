"""Recommend: hydrate ▶ infer ▶ select, from the highest step of the ladder that is there.

full ▶ recent events only ▶ popular in the segment ▶ popular. What fails below is answered from the next step; an
answer is empty only where filter or catalogue leave nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from features.schema import TOP_ITEMS, Tier
from features.shopper import Shopper
from server.catalogue_index import Mask, Rows
from server.deadline import Deadline
from server.errors import ModelUnavailable
from server.filters import allowed, removed_counts
from server.hydrate import fusion_request, no_candidates
from server.loaded_release import LoadedRelease
from server.queries import Reason, Recommendation, RecommendQuery, Strand
from server.reasons import reasons_of
from server.selection import best_rows, spread_out
from server.shop import Shop
from server.triton import FusionRequest

LOG = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]


async def recommend(shop: Shop, query: RecommendQuery, deadline: Deadline) -> Recommendation:
    """Items for a shopper, best first, all of them allowed by the filter."""
    while True:
        release = shop.releases.current
        shopper = await shop.shopper(query.shopper, release.number if release else 0, deadline)
        page = await _Page.of(shop, query, shopper, deadline)
        if release is None or not shopper.known or not page.mask.any():
            return page.popular(release)
        try:
            return await page.by_model(release, deadline)
        except ModelUnavailable as error:
            if shop.releases.current is release:
                LOG.debug("answering without the model: %s", error)
                return page.popular(release)
        # The release was replaced meanwhile; ask its successor.


class _Page:
    """One answer in the making."""

    def __init__(
        self, shop: Shop, query: RecommendQuery, shopper: Shopper, purchased: Rows, sellable: Mask, stamp: int
    ) -> None:
        self._shop = shop
        self._query = query
        self._shopper = shopper
        self._purchased = purchased
        self._sellable = sellable
        self.mask = allowed(shop.index, sellable, query.filter, purchased)
        """Rows of the catalogue that may be shown."""
        self._stamp = stamp if self.mask is sellable else None

    @staticmethod
    async def of(shop: Shop, query: RecommendQuery, shopper: Shopper, deadline: Deadline) -> _Page:
        bought: Sequence[str] = ()
        if query.filter.exclude_purchased:
            bought = await shop.bought_item_ids(shopper, query.shopper, query.filter, deadline)
        sellable, stamp = shop.sellable.mask(
            query.shopper.now_ms, allow_age_restricted=query.filter.allow_age_restricted
        )
        return _Page(shop, query, shopper, shop.index.rows(bought), sellable, stamp)

    async def by_model(self, release: LoadedRelease, deadline: Deadline) -> Recommendation:
        """From the fusion of both strands, or of the recent events alone."""
        shopper, index = self._shopper, self._shop.index
        bits = release.allowed_bits(self.mask, self._stamp)
        request = fusion_request(shopper, release, index, allowed=bits, candidates=no_candidates())
        (answer,) = await self._shop.model.fuse(request, deadline=deadline)
        rows, scores = best_rows(answer, release, self.mask)
        places = self._spread(rows, scores, release)
        rows, scores = rows[places], scores[places]
        reasons: list[Reason] = []
        if self._query.explain and rows.size:
            reasons = await reasons_of(self._shop, shopper, release, rows, scores, answer, deadline)
        return self._answer(
            rows,
            scores,
            tier=Tier.FULL if shopper.interest else Tier.RECENT,
            request=request,
            long_term_weight=float(answer.long_weight[0]),
            reasons=reasons,
        )

    def popular(self, release: LoadedRelease | None) -> Recommendation:
        """What is popular in the page's category, in the shopper's country, in the shop."""
        index = self._shop.index
        country = self._shopper.profile.country
        page_category = self._query.shopper.context.page_category
        rows, scores, chosen = self._shop.popular.current.best(
            f"country:{country}" if country else "",
            index.in_category(page_category) if page_category else None,
            self.mask,
            TOP_ITEMS if self._query.diversity else self._query.page_size,
        )
        places = self._spread(rows, scores, release)
        rows, scores = rows[places], scores[places]
        return self._answer(
            rows,
            scores,
            tier=Tier.SEGMENT if chosen else Tier.POPULAR,
            request=None,
            long_term_weight=None,
            reasons=[Reason(Strand.POPULAR)] * rows.size if self._query.explain else [],
        )

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
        reasons: list[Reason],
    ) -> Recommendation:
        shopper = self._shopper
        item_ids = [self._shop.index.item_ids[row] for row in rows]
        short = rows.size < self._query.page_size
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
            scores=scores.tolist(),
            reasons=reasons,
            tier=tier,
            release=answer.release,
            long_term_weight=long_term_weight,
            last_event_ms=shopper.last_event_ms,
            encoded_through_ms=shopper.interest.encoded_through_ms if request and shopper.interest else None,
            filter_counts=removed_counts(self._shop.index, self._sellable, self._query.filter, self._purchased)
            if short
            else [],
            attribution_token=answer.attribution_token,
            long_term_stale=shopper.interest_stale,
        )


def _options(query: RecommendQuery) -> dict[str, Any]:
    """What the request asked for beyond shopper and placement, fields that were not set left out."""
    chosen = {name: value for name, value in asdict(query.filter).items() if value not in (None, False, ())}
    return {"filter": chosen, "page_size": query.page_size, "diversity": query.diversity}
