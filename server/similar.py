"""SimilarItems: what lies nearest to one item in the release's vectors, or without a release, in content."""

from __future__ import annotations

import numpy as np

from server.errors import NotFound
from server.filters import allowed
from server.queries import ItemFilter, SimilarItems
from server.shop import Shop

_NOBODY = np.zeros(0, np.int32)


def similar_items(shop: Shop, item_id: str, page_size: int, item_filter: ItemFilter, now_ms: int) -> SimilarItems:
    """Items by cosine, never the item itself, and one item of a variant group.

    Raises:
        NotFound: neither catalogue nor release knows the item.
    """
    index, release = shop.index, shop.releases.current
    row = index.row_of.get(item_id, -1)
    known = row >= 0 and (not index.columns.deleted[row] or (release is not None and release.knows(item_id, index)))
    if not known:
        raise NotFound(f"item_id: neither catalogue nor release knows {item_id!r}; add it with UpsertItems")
    sellable, _ = shop.sellable.mask(now_ms, allow_age_restricted=item_filter.allow_age_restricted)
    rows = np.flatnonzero(allowed(index, sellable, item_filter, _NOBODY)).astype(np.int32)
    rows = rows[rows != row]
    if release is not None:
        units = release.unit_vectors(rows)
        similarity = units @ release.unit_vectors(np.array([row], np.int32))[0]
    if release is None or not similarity.any():  # no vector for the item
        similarity = index.content_similarity(row, rows)
    order = np.argsort(-similarity, kind="stable")
    groups = index.columns.variant[rows[order]]
    first = np.zeros(order.size, np.bool_)
    first[np.unique(groups, return_index=True)[1]] = True
    keep = ((groups == 0) | first) & ((groups == 0) | (groups != index.columns.variant[row]))
    chosen = order[keep][:page_size]
    return SimilarItems(
        item_ids=[index.item_ids[place] for place in rows[chosen]],
        similarities=np.clip(similarity[chosen], -1.0, 1.0).tolist(),
        release=release.number if release else 0,
    )
