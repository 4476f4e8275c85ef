"""SimilarItems: what lies nearest to one item in the release's vectors, or without a release, in content."""

from __future__ import annotations

import numpy as np

from server.catalogue.catalogue_index import Rows
from server.errors import NotFound
from server.queries import ItemFilter, SimilarItems
from server.releases.loaded_release import Floats
from server.select.filters import attribute_mask, without
from server.shop import Shop


def similar_items(shop: Shop, item_id: str, page_size: int, item_filter: ItemFilter, now_ms: int) -> SimilarItems:
    """Items by cosine, never the item itself nor its variants, and one item of any other variant group.

    Raises:
        NotFound: neither catalogue nor release knows the item.
    """
    index, release = shop.index, shop.releases.current
    row = index.row_of.get(item_id, -1)
    known = row >= 0 and (not index.columns.deleted[row] or (release is not None and release.knows(item_id, index)))
    if not known:
        raise NotFound(f"item_id: neither catalogue nor release knows {item_id!r}; add it with UpsertItems")
    sellable, _ = shop.sellable.mask(now_ms, allow_age_restricted=item_filter.allow_age_restricted)
    kept = without(attribute_mask(index, sellable, item_filter), index.rows(item_filter.exclude_item_ids))
    rows = np.flatnonzero(kept).astype(np.int32)
    rows = rows[rows != row]
    variants = index.columns.variant
    if variants[row]:
        rows = rows[variants[rows] != variants[row]]
    unit = release.unit_vectors(np.array([row], np.int32))[0] if release is not None else None
    if release is not None and unit is not None and unit.any():
        similarity = release.cosines(rows, unit)
    else:
        similarity = index.content_similarity(row, rows)
        rows, similarity = rows[similarity > 0], similarity[similarity > 0]  # nothing in common is not similar
    chosen = _nearest(similarity, variants[rows], page_size)
    return SimilarItems(
        item_ids=[index.item_ids[place] for place in rows[chosen]],
        similarities=np.clip(similarity[chosen], -1.0, 1.0).tolist(),
        release=release.number if release else 0,
    )


def _nearest(similarity: Floats, groups: Rows, count: int) -> Rows:
    """Places of the `count` most similar, of each group but 0 one alone; of equals the first."""
    wanted = min(2 * count, similarity.size)
    while True:
        if wanted < similarity.size:
            least = np.partition(similarity, -wanted)[-wanted]
            places = np.flatnonzero(similarity >= least)
        else:
            places = np.arange(similarity.size)
        places = places[np.argsort(-similarity[places], kind="stable")]
        found = groups[places]
        first = np.zeros(places.size, np.bool_)
        first[np.unique(found, return_index=True)[1]] = True
        places = places[(found == 0) | first]
        if places.size >= count or wanted >= similarity.size:
            nearest: Rows = places[:count].astype(np.int32)
            return nearest
        wanted *= 4
