"""The masks of a filter against a brute-force reading of the contract, item by item."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.shop.catalogue import CatalogueItem
from server.catalogue.catalogue_index import CatalogueIndex
from server.queries import ItemFilter
from server.select.filters import Sellable, attribute_mask, excluded, removed_counts, without

NOW_MS = 1_000_000
NAMES = ("A", "B", "A/B", "ü")
PATHS = st.lists(st.sampled_from(NAMES), max_size=3)
WRITTEN = st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join), max_size=3).map(tuple)
BRANDS = st.lists(st.sampled_from(["x", "y", "X"]), max_size=2).map(tuple)
PRICES = st.one_of(st.none(), st.sampled_from([0.0, 1.0, 2.5, 10.0]))
IDS = [f"i{number}" for number in range(12)]

ITEMS = st.lists(
    st.builds(
        CatalogueItem,
        item_id=st.sampled_from(IDS),
        category_path=PATHS,
        brand=st.sampled_from([None, "x", "y", "X"]),
        price=PRICES,
        stock=st.sampled_from([None, 0, 1, 5]),
        age_restricted=st.booleans(),
        launch_time_ms=st.sampled_from([None, NOW_MS - 1, NOW_MS, NOW_MS + 1]),
        deleted=st.booleans(),
    ),
    max_size=30,
)
FILTERS = st.builds(
    ItemFilter,
    keep_categories=WRITTEN,
    drop_categories=WRITTEN,
    keep_brands=BRANDS,
    drop_brands=BRANDS,
    min_price=PRICES,
    max_price=PRICES,
    in_stock_only=st.booleans(),
    exclude_item_ids=st.lists(st.sampled_from([*IDS, "nobody"]), max_size=4).map(tuple),
    exclude_purchased=st.booleans(),
    allow_age_restricted=st.booleans(),
)


def begins_with(item: CatalogueItem, written: tuple[str, ...]) -> bool:
    beginnings = {"/".join(item.category_path[:level]) for level in range(1, len(item.category_path) + 1)}
    return any(path in beginnings for path in written)


def sellable_by_hand(item: CatalogueItem, wanted: ItemFilter) -> bool:
    launched = item.launch_time_ms is None or item.launch_time_ms <= NOW_MS
    return not item.deleted and launched and (wanted.allow_age_restricted or not item.age_restricted)


def kept_by_hand(item: CatalogueItem, wanted: ItemFilter, bought: set[str]) -> bool:
    known_price = item.price is not None
    return (
        (not wanted.keep_categories or begins_with(item, wanted.keep_categories))
        and not begins_with(item, wanted.drop_categories)
        and (not wanted.keep_brands or item.brand in wanted.keep_brands)
        and item.brand not in wanted.drop_brands
        and (wanted.min_price is None or (known_price and item.price >= wanted.min_price))
        and (wanted.max_price is None or (known_price and item.price <= wanted.max_price))
        and not (wanted.in_stock_only and item.stock is not None and item.stock <= 0)
        and item.item_id not in wanted.exclude_item_ids
        and not (wanted.exclude_purchased and item.item_id in bought)
    )


@settings(max_examples=400, deadline=None)
@given(ITEMS, FILTERS, st.sets(st.sampled_from(IDS)))
def test_a_filter_keeps_exactly_what_the_contract_says(
    items: list[CatalogueItem], wanted: ItemFilter, bought: set[str]
) -> None:
    index = CatalogueIndex()
    index.apply(items[: len(items) // 2])
    index.apply(items[len(items) // 2 :])
    latest = {item.item_id: item for item in items}
    purchased = index.rows(sorted(bought))
    sellable, _ = Sellable(index).mask(NOW_MS, allow_age_restricted=wanted.allow_age_restricted)
    left_out = excluded(index, wanted, purchased)
    mask = attribute_mask(index, sellable, wanted)
    for _, rows in left_out:
        mask = without(mask, rows)
    shown = {index.item_ids[row] for row in np.flatnonzero(mask)}
    expected = {
        item_id
        for item_id, item in latest.items()
        if sellable_by_hand(item, wanted) and kept_by_hand(item, wanted, bought)
    }
    assert shown == expected
    counts = removed_counts(index, sellable, wanted, left_out)
    assert sum(count for _, count in counts) == len(latest) - len(expected)
    assert len(counts) == len(dict(counts))


def test_an_item_is_sold_from_its_launch_on() -> None:
    index = CatalogueIndex()
    index.apply([CatalogueItem(item_id="soon", launch_time_ms=NOW_MS)])
    sellable = Sellable(index)
    before, stamp_before = sellable.mask(NOW_MS - 1, allow_age_restricted=False)
    after, stamp_after = sellable.mask(NOW_MS, allow_age_restricted=False)
    assert not before.any() and after.all()
    assert stamp_before != stamp_after


def test_a_clock_that_is_set_back_takes_the_launch_back() -> None:
    index = CatalogueIndex()
    index.apply([CatalogueItem(item_id="soon", launch_time_ms=NOW_MS), CatalogueItem(item_id="here")])
    sellable = Sellable(index)
    moments_ms = (NOW_MS + 5, NOW_MS - 1, NOW_MS, NOW_MS - 1)
    seen = [sellable.mask(moment_ms, allow_age_restricted=False) for moment_ms in moments_ms]
    assert [mask.tolist() for mask, _ in seen] == [[True, True], [False, True], [True, True], [False, True]]
    assert seen[0][1] == seen[2][1] != seen[1][1] == seen[3][1]


def test_a_change_holds_from_the_next_mask_on() -> None:
    index = CatalogueIndex()
    sellable = Sellable(index)
    index.apply([CatalogueItem(item_id="a"), CatalogueItem(item_id="b")])
    assert sellable.mask(NOW_MS, allow_age_restricted=False)[0].tolist() == [True, True]
    index.apply([CatalogueItem(item_id="a", deleted=True)])
    assert sellable.mask(NOW_MS, allow_age_restricted=False)[0].tolist() == [False, True]


def test_rows_stay_when_the_index_grows() -> None:
    index = CatalogueIndex()
    many = [CatalogueItem(item_id=str(number), price=float(number)) for number in range(5_000)]
    for start in range(0, len(many), 700):
        index.apply(many[start : start + 700])
    assert index.rows(["0", "4999", "none"]).tolist() == [0, 4999, -1]
    assert index.columns.price.tolist() == [float(number) for number in range(5_000)]


def test_categories_and_brands_may_be_as_many_as_the_items() -> None:
    index = CatalogueIndex()
    for start in (0, 500):
        index.apply(
            CatalogueItem(item_id=str(n), category_path=[f"top {n % 50}", f"leaf {n}"], brand=f"brand {n}")
            for n in range(start, start + 500)
        )
    assert np.flatnonzero(index.in_categories(["top 7"])).tolist() == list(range(7, 1_000, 50))
    assert np.flatnonzero(index.in_categories(["top 7/leaf 957", "top 0/leaf 0", "leaf 3"])).tolist() == [0, 957]
    assert np.flatnonzero(index.of_brands(["brand 0", "brand 999"])).tolist() == [0, 999]
