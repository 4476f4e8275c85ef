"""Masks that requests share take the memory that is meant for them and no more, whatever callers filter by."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator

import pytest

from features.shop.catalogue import CatalogueItem
from server.catalogue.catalogue_index import CatalogueIndex
from server.queries import ItemFilter
from server.select.filter_masks import MOST_BYTES, FilterMasks
from server.select.filters import Sellable
from server.select.placement_rules import NO_RULES


@pytest.fixture
def index() -> CatalogueIndex:
    """A small catalogue, whose masks are nothing beside the filters."""
    index = CatalogueIndex()
    index.apply(CatalogueItem(item_id=str(number), category_path=["a"]) for number in range(100))
    return index


def long_filters(count: int) -> Iterator[ItemFilter]:
    """Each of more than 200,000 characters that no other has."""
    for number in range(count):
        keep, drop = (tuple(f"{number}{sign}{place}".ljust(1000, "x") for place in range(100)) for sign in ("+", "-"))
        brands = tuple(f"{number} {place}".ljust(128, "x") for place in range(100))
        yield ItemFilter(keep_categories=keep, drop_categories=drop, keep_brands=brands)


def taken_by(masks: FilterMasks, filters: Iterable[ItemFilter]) -> int:
    """Bytes that are held once each of the filters has been asked for."""
    tracemalloc.start()
    try:
        for one in filters:
            masks.of(1, one, NO_RULES)
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_long_filters_count(index: CatalogueIndex) -> None:
    assert taken_by(FilterMasks(index, Sellable(index)), long_filters(600)) <= 1.05 * MOST_BYTES


def test_small_filters_count_by_what_lies_around_their_masks(index: CatalogueIndex) -> None:
    masks, one = FilterMasks(index, Sellable(index)), ItemFilter(max_price=0.5)
    first = masks.of(1, one, NO_RULES)
    for number in range(MOST_BYTES // 1024):
        masks.of(1, ItemFilter(max_price=float(number)), NO_RULES)
    assert masks.of(1, one, NO_RULES) is not first


def test_filters_of_an_older_catalogue_leave_with_it(index: CatalogueIndex) -> None:
    masks = FilterMasks(index, Sellable(index))

    def filters() -> Iterator[ItemFilter]:
        yield from long_filters(100)
        index.apply([CatalogueItem(item_id="new")])
        yield ItemFilter(max_price=1.0)

    assert taken_by(masks, filters()) < MOST_BYTES / 50


def test_a_filter_that_is_asked_again_shares_its_mask_until_the_catalogue_changes(index: CatalogueIndex) -> None:
    masks, one = FilterMasks(index, Sellable(index)), ItemFilter(keep_categories=("a",))
    first = masks.of(1, one, NO_RULES)
    assert masks.of(2, one, NO_RULES) is first
    index.apply([CatalogueItem(item_id="new", category_path=["a"])])
    assert masks.of(3, one, NO_RULES).mask.sum() == first.mask.sum() + 1
