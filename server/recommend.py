"""Recommend: hydrate ▶ infer ▶ select, from the highest step of the ladder that is there.

full ▶ recent events only ▶ popular in the segment ▶ popular. What fails below is answered from the next step; an
answer is empty only where filter or catalogue leave nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from features.answers.answers import EXPLORED
from features.inputs.shopper import Shopper
from features.offline.item_statistics import segments
from features.schema import Tier
from server.catalogue.catalogue_index import Mask, Rows
from server.deadline import Deadline
from server.errors import ModelUnavailable
from server.hydrate.fusion_request import FusionRequest
from server.infer.triton import FusionAnswer
from server.queries import NO_CAPS, NO_FILTER, Reason, Recommendation, RecommendQuery, Strand
from server.releases.loaded_release import LoadedRelease
from server.releases.shadow_queue import Copy
from server.select.allowed_rows import NOTHING, allowed_rows
from server.select.diversity import POOL, Page
from server.select.exploration import explore
from server.select.filters import Excluded, removed_counts
from server.select.placement_rules import lay_out, placed_pins
from server.select.reasons import reasons_of
from server.select.selection import last_score, more_is_known
from server.shop import Course, Shop
from server.stages import SELECT, Stage

LOG = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]


async def recommend(shop: Shop, query: RecommendQuery, deadline: Deadline) -> Recommendation:
    """Items for a shopper, best first, all of them allowed by the filter."""
    choice = shop.traffic.choose(query.shopper, query.placement)
    course, release = Course(choice.trial), choice.release
    while True:
        shopper = await shop.shopper(query.shopper, release.number if release else 0, deadline)
        left_out = await shop.left_out(shopper, query.shopper, query.filter, deadline)
        page = _Page(shop, query, shopper, left_out, course)
        if release is None or not shopper.known or not page.mask.any():
            return page.popular(release)
        try:
            answer = await page.by_model(release, deadline)
        except ModelUnavailable as error:
            course.model_failed = True
            if shop.releases.current is release:
                LOG.debug("answering without the model: %s", error)
                page = _Page(shop, query, shopper, left_out, course)  # the catalogue may have grown meanwhile
                return page.popular(release)
            release = shop.releases.current  # it was replaced meanwhile, or is an arm that the live one stands in for
        else:
            if choice.shadow is not None:
                shop.shadows.offer(Copy(choice.experiment, choice.shadow, query, left_out, answer, course.took_ms))
            return answer


async def shadow_page(shop: Shop, copy: Copy, deadline: Deadline) -> tuple[list[str], list[float]]:
    """Item ids and scores that the shadow would have answered; nothing is recorded.

    Raises:
        ModelUnavailable: its model does not answer.
    """
    shopper = await shop.shopper(copy.query.shopper, copy.shadow.number, deadline)
    return await _Page(shop, copy.query, shopper, copy.left_out, Course(None)).as_shadow(copy.shadow, deadline)


class _Page:
    """One answer in the making, by the catalogue and the rules of the moment when it is made."""

    def __init__(self, shop: Shop, query: RecommendQuery, shopper: Shopper, left_out: Excluded, course: Course) -> None:
        self._shop = shop
        self._query = query
        self._shopper = shopper
        self._left_out = left_out
        self._course = course
        rules = shop.rules.at(query.placement, query.shopper.now_ms)
        self._allowed = allowed_rows(shop.masks.of(query.shopper.now_ms, query.filter, rules), left_out)
        self.mask = self._allowed.mask
        """Rows of the catalogue that may be shown."""
        self._pins = placed_pins(rules.pins, shop.index, self.mask, query.page_size) if rules.pins else []
        self._pinned_rows: Rows = np.array([row for _, row in self._pins], np.int32) if self._pins else NOTHING

    async def by_model(self, release: LoadedRelease, deadline: Deadline) -> Recommendation:
        """From the fusion of both strands, or of the recent events alone."""
        shopper, index = self._shopper, self._shop.index
        requests = self._allowed.requests(shopper, release, index)
        answers = await self._shop.model.fuse(*requests, deadline=deadline)
        with Stage(SELECT):
            page = await self._page(release, answers, deadline)
            suits = partial(release.content_scores, interest=answers[0].interest)
            explore(self._shop, self._query, page, self._allowed, release, suits, by_model=True)
        reasons: list[Reason | None] = []
        if self._query.explain and page.rows.size:
            scores = page.scores - self._allowed.boosts(page.rows)
            try:
                reasons.extend(await reasons_of(self._shop, shopper, release, page.rows, scores, answers[0], deadline))
            except ModelUnavailable as error:
                LOG.debug("an answer goes out without its reasons: %s", error)
        return self._answer(
            page,
            tier=Tier.FULL if shopper.interest else Tier.RECENT,
            request=requests[0],
            long_term_weight=float(answers[0].long_weight[0]),
            reasons=reasons,
        )

    async def as_shadow(self, release: LoadedRelease, deadline: Deadline) -> tuple[list[str], list[float]]:
        """Items and scores as `by_model` would choose them, by rank alone and without a record."""
        requests = self._allowed.requests(self._shopper, release, self._shop.index)
        page = await self._page(release, await self._shop.model.fuse(*requests, deadline=deadline), deadline)
        return [self._shop.index.item_ids[row] for row in page.rows], page.scores.tolist()

    def popular(self, release: LoadedRelease | None) -> Recommendation:
        """What is popular in the page's category, in the shopper's country, in the shop."""
        index, query, popularity = self._shop.index, self._query, self._shop.popular.current
        page_category = query.shopper.context.page_category
        category = index.in_category(page_category) if page_category else None
        names = segments(self._shopper.profile.country or "", self._shopper.device, query.shopper.now_ms)
        count = POOL if query.diversity or query.caps != NO_CAPS else query.page_size

        def best(mask: Mask) -> tuple[Rows, Floats, bool]:
            return popularity.best(names, category, mask, count)

        with Stage(SELECT):
            page, left, in_segment = self._empty_page(release), self._allowed.but(self._pinned_rows), False
            while not page.done:
                rows, scores, boosts, chosen = left.most_popular(best)
                page.take(rows[:count], (scores + boosts)[:count])
                in_segment = in_segment or chosen
                if rows.size < count:
                    break
                left = self._allowed.but(page.closed(self.mask))
            shares = partial(popularity.scores, names, category)
            explore(self._shop, query, page, self._allowed, release, shares, by_model=False)
        return self._answer(
            page,
            tier=Tier.SEGMENT if in_segment else Tier.POPULAR,
            request=None,
            long_term_weight=None,
            reasons=[Reason(Strand.POPULAR)] * page.rows.size if query.explain else [],
        )

    async def _page(self, release: LoadedRelease, answers: Sequence[FusionAnswer], deadline: Deadline) -> Page:
        """The model's best items on a page; where caps leave places open, the model is asked for what they allow."""
        page, left = self._empty_page(release), self._allowed.but(self._pinned_rows)
        answer = answers[0]
        while True:
            rows, scores, boosts = left.best(answers, release)
            page.take(rows, scores + boosts)
            if page.done or not any(map(more_is_known, answers)):
                break
            left = self._allowed.but(page.closed(self.mask))
            requests = left.requests(self._shopper, release, self._shop.index)
            answers = await self._shop.model.fuse(*requests, deadline=deadline)
        if not page.done:
            rest = np.flatnonzero(page.open(self.mask))[::-1].astype(np.int32)  # newest first
            page.take(rest, np.full(rest.size, last_score(page.scores, answer, release), np.float32))
        return page

    def _empty_page(self, release: LoadedRelease | None) -> Page:
        index, query, pinned = self._shop.index, self._query, self._pinned_rows

        def similarities(rows: Rows) -> Floats:
            if release is None:
                return index.content_similarities(rows)
            units = release.unit_vectors(rows)
            similarity: Floats = units @ units.T
            return similarity

        size = query.page_size - pinned.size
        return Page(index, size, query.diversity, query.caps, similarities, pinned)

    def _answer(
        self,
        ranked: Page,
        *,
        tier: Tier,
        request: FusionRequest | None,
        long_term_weight: float | None,
        reasons: list[Reason | None],
    ) -> Recommendation:
        shopper = self._shopper
        page = lay_out(ranked.rows.size, [position for position, _ in self._pins])
        rows, scores = ranked.rows.tolist(), ranked.scores.tolist()
        shown = [self._pins[place][1] if is_pin else rows[place] for is_pin, place in page]
        item_ids = [self._shop.index.item_ids[row] for row in shown]
        explained = dict(enumerate(reasons))
        explored = None if ranked.explored is None else page.index((False, ranked.explored))
        answer = self._shop.remember(
            self._query.shopper,
            shopper,
            tier,
            request,
            course=self._course,
            options=_options(self._query) | ({} if explored is None else {EXPLORED: [item_ids[explored]]}),
            placement=self._query.placement,
            item_ids=item_ids,
        )
        return Recommendation(
            item_ids=item_ids,
            scores=[0.0 if is_pin else scores[place] for is_pin, place in page],
            reasons=[None if is_pin else explained.get(place) for is_pin, place in page],
            pinned=[is_pin for is_pin, _ in page],
            explored=explored,
            tier=tier,
            release=answer.release,
            long_term_weight=long_term_weight,
            last_event_ms=shopper.last_event_ms,
            encoded_through_ms=shopper.interest.encoded_through_ms if request and shopper.interest else None,
            filter_counts=self._filter_counts(ranked) if len(page) < self._query.page_size else [],
            attribution_token=answer.attribution_token,
            long_term_stale=shopper.interest_stale,
        )

    def _filter_counts(self, ranked: Page) -> list[tuple[str, int]]:
        shop, query = self._shop, self._query
        now_ms = query.shopper.now_ms
        sellable, _ = shop.sellable.mask(now_ms, allow_age_restricted=query.filter.allow_age_restricted)
        blocks = shop.rules.at(query.placement, now_ms).blocks
        counts = removed_counts(shop.index, sellable, query.filter, self._left_out, blocks)
        return [*counts, *ranked.passed_over(self.mask)]


def _options(query: RecommendQuery) -> dict[str, Any]:
    """What the request asked for beyond shopper and placement, fields that were not set left out."""
    filters = {} if query.filter == NO_FILTER else asdict(query.filter)
    chosen = {name: value for name, value in filters.items() if value not in (None, False, ())}
    caps = {} if query.caps == NO_CAPS else {name: value for name, value in asdict(query.caps).items() if value}
    return {"filter": chosen, "page_size": query.page_size, "diversity": query.diversity, **caps}
