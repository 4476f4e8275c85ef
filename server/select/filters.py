"""Which rows of the catalogue may be shown to one request: exact, vectorised, and able to say what took what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from features.shop.placement_rules import FOREVER_MS
from server.catalogue.catalogue_index import CatalogueIndex, Mask, Rows
from server.queries import ItemFilter

CATALOG = "catalog"
"""What `filter_counts` calls the items that no request of this kind may show."""

Excluded = Sequence[tuple[str, Rows]]
"""The field of the filter and the rows that it leaves out of one answer; -1 is none."""


class Sellable:
    """Rows that are neither deleted nor unlaunched, nor age-restricted unless allowed; kept until that changes."""

    def __init__(self, index: CatalogueIndex) -> None:
        self._index = index
        self._known: dict[bool, tuple[int, int, int, Mask]] = {}
        """The catalogue's version, from when and until when it holds, and the rows."""

    def mask(self, now_ms: int, *, allow_age_restricted: bool) -> tuple[Mask, int]:
        """The rows, read-only, and a number that changes when they do."""
        known = self._known.get(allow_age_restricted)
        if known is None or known[0] != self._index.version or not known[1] <= now_ms < known[2]:
            columns = self._index.columns
            launched = columns.launch_ms <= now_ms
            mask = ~columns.deleted & launched
            if not allow_age_restricted:
                mask &= ~columns.restricted
            since_ms = int(columns.launch_ms.max(initial=-FOREVER_MS, where=launched))
            until_ms = int(columns.launch_ms.min(initial=FOREVER_MS, where=~launched))
            known = self._known[allow_age_restricted] = self._index.version, since_ms, until_ms, mask
        return known[3], hash((known[0], known[2], allow_age_restricted))


def attribute_mask(index: CatalogueIndex, sellable: Mask, item_filter: ItemFilter) -> Mask:
    """Rows that the attributes of the items let in, whoever the shopper is; `sellable` itself where it names none."""
    mask = sellable
    for _, kept in _steps(index, item_filter):
        mask = mask & kept
    return mask


def excluded(
    index: CatalogueIndex, item_filter: ItemFilter, purchased: Rows, shown: Rows | None = None
) -> list[tuple[str, Rows]]:
    """Rows that single fields leave out by name."""
    found = []
    if item_filter.exclude_item_ids:
        found.append(("exclude_item_ids", index.rows(item_filter.exclude_item_ids)))
    if item_filter.exclude_purchased:
        found.append(("exclude_purchased", purchased))
    if item_filter.exclude_shown_today and shown is not None:
        found.append(("exclude_shown_today", shown))
    return found


def without(mask: Mask, rows: Rows) -> Mask:
    """The mask without some rows; itself where there are none."""
    if not rows.size:  # the usual case: three passes of numpy less
        return mask
    rows = rows[(rows >= 0) & (rows < mask.size)]
    if not rows.size:
        return mask
    left = mask.copy()
    left[rows] = False
    return left


def removed_counts(
    index: CatalogueIndex,
    sellable: Mask,
    item_filter: ItemFilter,
    left_out: Excluded,
    blocks: Sequence[tuple[str, Mask]] = (),
) -> list[tuple[str, int]]:
    """(field, items it took) for every field that took some; an item is counted at the first that takes it.

    Args:
        left_out: as `excluded` gives it.
        blocks: name and rows of each block of the placement.
    """
    counts = [(CATALOG, int(sellable.size - sellable.sum()))]
    mask = sellable
    for name, blocked in blocks:
        counts.append((name, int((mask & blocked).sum())))
        mask = mask & ~blocked
    for field, kept in _steps(index, item_filter):
        counts.append((field, int((mask & ~kept).sum())))
        mask = mask & kept
    for field, rows in left_out:
        left = without(mask, rows)
        counts.append((field, int(mask.sum() - left.sum())))
        mask = left
    return [(field, count) for field, count in counts if count]


def _steps(index: CatalogueIndex, item_filter: ItemFilter) -> Iterator[tuple[str, Mask]]:
    if item_filter.keep_categories:
        yield "keep_categories", index.in_categories(item_filter.keep_categories)
    if item_filter.drop_categories:
        yield "drop_categories", ~index.in_categories(item_filter.drop_categories)
    if item_filter.keep_brands:
        yield "keep_brands", index.of_brands(item_filter.keep_brands)
    if item_filter.drop_brands:
        yield "drop_brands", ~index.of_brands(item_filter.drop_brands)
    if item_filter.min_price is not None:
        yield "min_price", index.columns.price >= item_filter.min_price  # False for NaN
    if item_filter.max_price is not None:
        yield "max_price", index.columns.price <= item_filter.max_price
    if item_filter.in_stock_only:
        yield "in_stock_only", index.columns.in_stock
