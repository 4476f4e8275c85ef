"""Rank: scores for given items, in the order given."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from features.schema import PADDING
from server.attribution import new_token
from server.catalogue_index import Rows
from server.deadline import Deadline
from server.errors import ModelUnavailable
from server.hydrate import Shopper, fusion_request
from server.loaded_release import LoadedRelease
from server.queries import Ranking, ShopperQuery, Tier
from server.selection import scores_of
from server.shop import Shop

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
        return Ranking(
            scores=scores.tolist(),
            unknown=unknown,
            tier=tier,
            release=release.number,
            attribution_token=new_token(release.number, tier),
            long_term_stale=shopper.interest_stale,
        )
    return _by_popularity(shop, rows, unknown, shopper)


def _by_popularity(shop: Shop, rows: Rows, unknown: list[bool], shopper: Shopper) -> Ranking:
    popularity = shop.popular.current
    scores = popularity.of_rows(rows)
    everywhere = popularity.of_rows(np.arange(len(shop.index), dtype=np.int32))
    scores[rows < 0] = everywhere.mean() if everywhere.size else 0.0
    return Ranking(
        scores=scores.tolist(),
        unknown=unknown,
        tier=Tier.POPULAR,
        release=0,
        attribution_token=new_token(0, Tier.POPULAR),
        long_term_stale=shopper.interest_stale,
    )


def _candidates(release: LoadedRelease, rows: Rows) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    width = next(shape for shape in SHAPES if shape >= rows.size)
    candidates = np.full(width, PADDING, np.int32)
    indices = release.indices(rows)
    candidates[: rows.size] = np.where(indices >= 0, indices, PADDING)
    return candidates
