"""Rank: scores for given items, in the order given."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from features.schema import PADDING, Tier
from features.shopper import Shopper, ShopperQuery
from server.catalogue_index import Rows
from server.deadline import Deadline
from server.errors import ModelUnavailable
from server.hydrate import fusion_request
from server.loaded_release import LoadedRelease
from server.queries import Ranking
from server.selection import Floats, scores_of
from server.shop import Shop
from server.triton import FusionRequest

LOG = logging.getLogger(__name__)

SHAPES = (16, 128, 1024)
"""Widths of the tensor `candidates`: only equal widths go together."""


async def rank(shop: Shop, query: ShopperQuery, item_ids: Sequence[str], deadline: Deadline) -> Ranking:
    """Scores of the items for the shopper and the moment; whether an item may be shown does not matter here."""
    rows = shop.index.rows(item_ids)
    unknown = [bool(row < 0) for row in rows]
    while True:
        release = shop.releases.current
        shopper = await shop.shopper(query, release.number if release else 0, deadline)
        if release is None or not shopper.known:
            break
        request = fusion_request(shopper, release, shop.index, allowed=b"\0", candidates=_candidates(release, rows))
        try:
            (answer,) = await shop.model.fuse(request, deadline=deadline)
        except ModelUnavailable as error:
            if shop.releases.current is release:
                LOG.debug("ranking without the model: %s", error)
                break
            continue
        tier = Tier.FULL if shopper.interest else Tier.RECENT
        scores = scores_of(answer, release, rows)
        return _answer(shop, query, shopper, item_ids, scores, unknown, tier, request)
    return _answer(shop, query, shopper, item_ids, _popularity(shop, rows), unknown, Tier.POPULAR, None)


def _answer(
    shop: Shop,
    query: ShopperQuery,
    shopper: Shopper,
    item_ids: Sequence[str],
    scores: Floats,
    unknown: list[bool],
    tier: Tier,
    request: FusionRequest | None,
) -> Ranking:
    """The answer, remembered without a page: how the caller arranges the items is not known here."""
    answer = shop.remember(query, shopper, tier, request, options={"ranked_item_ids": list(item_ids)})
    return Ranking(
        scores=scores.tolist(),
        unknown=unknown,
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


def _candidates(release: LoadedRelease, rows: Rows) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    width = next(shape for shape in SHAPES if shape >= rows.size)
    candidates = np.full(width, PADDING, np.int32)
    indices = release.indices(rows)
    candidates[: rows.size] = np.where(indices >= 0, indices, PADDING)
    return candidates
