"""Diversity and caps: the model's order at 0, as unlike as possible at 1, and never more of a kind than allowed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.shop.catalogue import CatalogueItem
from server.catalogue.catalogue_index import CatalogueIndex, Rows
from server.queries import Caps
from server.select.diversity import POOL, Floats, Page, spread_out

UNITS = np.array([[1, 0], [1, 0], [0.9, 0.436], [0, 1], [-1, 0]], np.float32)
SIMILARITY = UNITS @ UNITS.T
SCORES = np.array([5.0, 4.0, 3.0, 2.0, 1.0], np.float32)


def test_no_diversity_is_the_order_of_the_scores() -> None:
    assert spread_out(SCORES, 3, 0.0, SIMILARITY).tolist() == [0, 1, 2]


def test_full_diversity_takes_the_least_similar_next() -> None:
    assert spread_out(SCORES, 3, 1.0, SIMILARITY).tolist() == [0, 4, 3]


def test_some_diversity_passes_over_a_twin() -> None:
    assert spread_out(SCORES, 2, 0.5, SIMILARITY).tolist() == [0, 4]


def test_equal_scores_and_short_lists_are_fine() -> None:
    assert sorted(spread_out(np.ones(5, np.float32), 9, 0.5, SIMILARITY).tolist()) == [0, 1, 2, 3, 4]
    assert spread_out(np.zeros(0, np.float32), 9, 0.5, np.zeros((0, 0), np.float32)).tolist() == []


def by_definition(scores: Floats, count: int, diversity: float, similarity: Floats) -> list[int]:
    """Maximal marginal relevance as the paper writes it, one item after the other."""
    span = float(scores.max() - scores.min())
    relevance = [(float(score) - float(scores.min())) / span if span else 0.0 for score in scores]
    chosen = [0]
    while len(chosen) < min(count, len(scores)):
        worth = {
            place: (1 - diversity) * relevance[place] - diversity * max(float(similarity[place, at]) for at in chosen)
            for place in range(len(scores))
            if place not in chosen
        }
        chosen.append(max(worth, key=lambda place: (worth[place], -place)))
    return chosen


@pytest.mark.parametrize("diversity", [0.1, 0.5, 0.9])
def test_the_page_is_that_of_the_definition_and_always_the_same(diversity: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        units = rng.normal(size=(40, 8)).astype(np.float32)
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        similarity = units @ units.T
        scores = -np.sort(-rng.normal(size=40).astype(np.float32))
        places = spread_out(scores, 10, diversity, similarity).tolist()
        assert places == by_definition(scores, 10, diversity, similarity)
        assert places == spread_out(scores, 10, diversity, similarity).tolist()


BRANDS = (None, "x", "y", "z")
PATHS = ([], ["A"], ["A", "1"], ["A", "2"], ["B"], ["B", "1"])
ITEMS = st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from(BRANDS)), max_size=60)
CAPS = st.builds(
    Caps, max_per_category=st.integers(0, 3), category_level=st.integers(0, 2), max_per_brand=st.integers(0, 3)
)


def index_of(kinds: list[tuple[list[str], str | None]]) -> CatalogueIndex:
    index = CatalogueIndex()
    index.apply(
        CatalogueItem(item_id=f"i{number}", category_path=path, brand=brand)
        for number, (path, brand) in enumerate(kinds)
    )
    return index


def has_room(kinds: list[tuple[list[str], str | None]], page: list[int], row: int, caps: Caps) -> bool:
    level = caps.category_level or 8
    categories = Counter(tuple(kinds[at][0][:level]) for at in page)
    brands = Counter(kinds[at][1] for at in page)
    category, brand = tuple(kinds[row][0][:level]), kinds[row][1]
    return not (
        (category and caps.max_per_category and categories[category] >= caps.max_per_category)
        or (brand and caps.max_per_brand and brands[brand] >= caps.max_per_brand)
    )


@settings(max_examples=200, deadline=None)
@given(ITEMS, CAPS, st.integers(1, 12), st.integers(1, 7))
def test_with_caps_the_page_is_the_best_that_has_room_however_far_down(
    kinds: list[tuple[list[str], str | None]], caps: Caps, size: int, width: int
) -> None:
    """As `Recommend` asks: `width` of the best open rows at a time."""
    index, everything = index_of(kinds), np.ones(len(kinds), np.bool_)
    expected: list[int] = []
    for row in range(len(kinds)):
        if len(expected) < size and has_room(kinds, expected, row, caps):
            expected.append(row)
    page = Page(index, size, 0.0, caps, index.content_similarities)
    while not page.done and (left := page.open(everything)).any():
        rows = np.flatnonzero(left)[:width].astype(np.int32)
        page.take(rows, -rows.astype(np.float32))
    assert page.rows.tolist() == expected
    if len(expected) < size:
        counts = [count for _, count in page.passed_over(everything)]
        assert sum(counts) == len(kinds) - len(expected) and 0 not in counts


@settings(max_examples=100, deadline=None)
@given(ITEMS, CAPS, st.integers(1, 12), st.sampled_from([0.2, 0.7, 1.0]))
def test_caps_hold_with_diversity_and_the_page_fills_if_it_can(
    kinds: list[tuple[list[str], str | None]], caps: Caps, size: int, diversity: float
) -> None:
    index = index_of(kinds)
    page = Page(index, size, diversity, caps, index.content_similarities)
    rows = np.arange(len(kinds), dtype=np.int32)
    page.take(rows, -rows.astype(np.float32))
    shown = page.rows.tolist()
    assert len(set(shown)) == len(shown) <= size
    for place, row in enumerate(shown):
        assert has_room(kinds, shown[:place], row, caps)
    if len(shown) < size:
        assert not any(has_room(kinds, shown, row, caps) for row in range(len(kinds)) if row not in shown)


def test_a_mask_from_before_the_catalogue_grew_is_fine() -> None:
    index = index_of([(["A"], "x"), (["A"], "x"), (["B"], "y")])
    page = Page(index, 3, 0.0, Caps(max_per_brand=1), index.content_similarities)
    page.take(np.array([0], np.int32), np.ones(1, np.float32))
    assert page.open(np.ones(2, np.bool_)).tolist() == [False, False]
    assert page.passed_over(np.ones(2, np.bool_)) == [("max_per_brand", 1)]


@pytest.mark.parametrize("caps", [Caps(max_per_category=1), Caps(max_per_brand=1)])
def test_caps_go_by_the_catalogue_of_the_pages_beginning_while_it_changes(caps: Caps) -> None:
    index = index_of([(["A"], "x")] * 5)
    page, everything = Page(index, 10, 0.0, caps, index.content_similarities), np.ones(5, np.bool_)
    page.take(np.array([0], np.int32), np.ones(1, np.float32))
    index.apply([CatalogueItem(item_id=item_id, category_path=["B"], brand="y") for item_id in ("i3", "i4", "new")])
    page.take(np.array([3], np.int32), np.ones(1, np.float32))
    assert page.rows.tolist() == [0]
    assert not page.open(everything).any()
    assert [count for _, count in page.passed_over(everything)] == [4]


def test_diversity_chooses_among_the_best_of_the_pool() -> None:
    kinds: list[tuple[list[str], str | None]] = [(["A"], None)] * (POOL + 20)
    kinds[POOL - 1], kinds[POOL] = (["B"], "x"), (["C"], "y")
    index = index_of(kinds)
    page = Page(index, 10, 1.0, Caps(), index.content_similarities)
    rows = np.arange(len(kinds), dtype=np.int32)
    page.take(rows, -rows.astype(np.float32))
    assert page.rows[:2].tolist() == [0, POOL - 1] and page.rows.max() < POOL


@pytest.mark.parametrize(
    ("caps", "open_rows"),
    [
        (Caps(), [3, 4, 5]),
        (Caps(max_per_category=2, category_level=1), [3, 4]),  # another A would be the third
        (Caps(max_per_brand=1), [4]),  # the place of the last x
    ],
)
def test_what_is_tried_out_has_room_once_the_last_has_left_and_is_not_the_last_itself(
    caps: Caps, open_rows: list[int]
) -> None:
    index = index_of([(["A"], "y"), (["A"], "z"), (["B"], "x"), (["B"], "y"), (["B"], "x"), (["A"], "z")])
    page = Page(index, 3, 0.0, caps, index.content_similarities)
    page.take(np.arange(3, dtype=np.int32), np.array([3, 2, 1], np.float32))
    assert np.flatnonzero(page.open_for_last(np.ones(6, np.bool_))).tolist() == open_rows
    page.give_last(1, open_rows[0], 0.5)
    assert (page.rows.tolist(), page.scores.tolist()) == ([0, open_rows[0], 1], [3.0, 0.5, 2.0])
    assert page.explored == 1


def test_likeness_of_many_is_that_of_each_pair() -> None:
    index = index_of([(path, brand) for path in PATHS for brand in BRANDS])
    rows: Rows = np.arange(len(index), dtype=np.int32)
    expected = np.stack([index.content_similarity(int(row), rows) for row in rows])
    assert index.content_similarities(rows) == pytest.approx(expected, abs=1e-6)
