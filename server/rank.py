"""Rank: scores for given items, in the order given, and the chance of an event with each."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from features.answers.answers import RANKED
from features.inputs.shopper import Shopper
from features.schema import Tier
from server.catalogue.catalogue_index import Rows
from server.deadline import Deadline
from server.errors import ModelUnavailable
from server.hydrate.fusion_request import FusionRequest, candidates_of
from server.infer.triton import FusionAnswer
from server.queries import Ranking, RankQuery
from server.releases.loaded_release import LoadedRelease
from server.select.chances import outcome_chances
from server.select.selection import Floats, scores_of
from server.shop import Course, Shop

LOG = logging.getLogger(__name__)


async def rank(shop: Shop, query: RankQuery, deadline: Deadline) -> Ranking:
    """Scores of the items for the shopper and the moment; whether an item may be shown does not matter here."""
    choice = shop.traffic.choose(query.shopper)
    course, release = Course(choice.trial), choice.release
    while True:
        shopper = await shop.shopper(query.shopper, release.number if release else 0, deadline)
        rows = _known_rows(shop, query, release)
        if release is None or not shopper.known:
            break
        request = FusionRequest(shopper, release, shop.index, allowed=b"\0", candidates=candidates_of(rows, release))
        try:
            (answer,) = await shop.model.fuse(request, deadline=deadline)
            scores = scores_of(answer, release, rows)
            by_content = await _score_content(shop, query, release, rows, answer, scores, deadline)
        except ModelUnavailable as error:
            course.model_failed = True
            if shop.releases.current is release:
                LOG.debug("ranking without the model: %s", error)
                break
            release = shop.releases.current
            continue
        chances = outcome_chances(query.event_type, rows, scores, shopper, release, shop.index, answer)
        unknown = (rows < 0) & ~by_content
        tier = Tier.FULL if shopper.interest else Tier.RECENT
        return _answer(shop, query, shopper, course, scores, unknown, tier, request, chances)
    return _answer(shop, query, shopper, course, _popularity(shop, rows), rows < 0, Tier.POPULAR)


def _known_rows(shop: Shop, query: RankQuery, release: LoadedRelease | None) -> Rows:
    """Catalogue rows of the items, (n,), -1 for those that neither catalogue nor release knows."""
    rows = shop.index.rows([*query.item_ids, *(item.item_id for item in query.items)])
    deleted = np.flatnonzero(rows >= 0)
    deleted = deleted[shop.index.columns.deleted[rows[deleted]]]  # it keeps its row
    rows[deleted if release is None else deleted[release.indices(rows[deleted]) < 0]] = -1
    return rows


async def _score_content(
    shop: Shop,
    query: RankQuery,
    release: LoadedRelease,
    rows: Rows,
    answer: FusionAnswer,
    scores: Floats,
    deadline: Deadline,
) -> npt.NDArray[np.bool_]:
    """Writes the scores of items that only their content tells of into `scores` (n,); which they are, (n,)."""
    places = np.arange(len(query.item_ids), rows.size)
    places = places[rows[places] < 0]
    if places.size:
        content = release.content_codes([query.items[place - len(query.item_ids)] for place in places])
        vectors, biases = await shop.model.item_vectors(release.number, content, deadline)
        scores[places] = vectors @ answer.interest + biases
    return np.isin(np.arange(rows.size), places)


def _answer(
    shop: Shop,
    query: RankQuery,
    shopper: Shopper,
    course: Course,
    scores: Floats,
    unknown: npt.NDArray[np.bool_],
    tier: Tier,
    request: FusionRequest | None = None,
    chances: npt.NDArray[np.float64] | None = None,
) -> Ranking:
    """The answer, remembered without a page: how the caller arranges the items is not known here."""
    item_ids = [*query.item_ids, *(item.item_id for item in query.items)]
    answer = shop.remember(query.shopper, shopper, tier, request, course=course, options={RANKED: item_ids})
    return Ranking(
        scores=scores.tolist(),
        unknown=unknown.tolist(),
        probabilities=None if chances is None else chances.tolist(),
        tier=tier,
        release=answer.release,
        attribution_token=answer.attribution_token,
        long_term_stale=shopper.interest_stale,
    )


def _popularity(shop: Shop, rows: Rows) -> Floats:
    """Scores where no model answers; an unknown item is the average one."""
    popularity = shop.popular.current
    scores = popularity.of_rows(rows)
    everywhere = popularity.of_rows(np.arange(len(shop.index), dtype=np.int32))
    scores[rows < 0] = everywhere.mean() if everywhere.size else 0.0
    return scores
