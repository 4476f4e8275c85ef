"""What is popular: the page's category first, then by the segment's shares, then what nobody has touched."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sqlalchemy import Engine, insert

from features.database.models import ItemStatistic
from features.offline.item_statistics import segments
from features.shop.catalogue import CatalogueItem
from server.catalogue.catalogue_index import CatalogueIndex, Mask
from server.select.popularity import LOOKED_AT, NOTHING, PRIOR_WEIGHT, PopularItems, Popularity, Segment

NOON_MS = 12 * 3_600_000
WHOLE = Segment.of([0, 1, 3], [100.0, 200.0, 400.0])
POPULARITY = Popularity.of(
    WHOLE,
    {
        "country:GB": Segment.of([0, 3], [900.0, 100.0]),
        "country:GB|device:phone": Segment.of([1], [50.0]),
        "country:IE": Segment.of([0], [0.01]),
        "time:afternoon": Segment.of([0], [1000.0]),
    },
    np.array([1, 2, 0, 4]),
    (0, 0, 0),
)
ALL = np.ones(6, np.bool_)


def test_the_whole_shop_in_order_and_then_the_newest() -> None:
    rows, scores, chosen = POPULARITY.best([], None, ALL, 10)
    assert rows.tolist() == [3, 1, 0, 5, 4, 2]
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert not chosen


def test_a_segment_that_says_much_decides_and_every_row_comes_once() -> None:
    rows, scores, chosen = POPULARITY.best(["country:GB"], None, ALL, 10)
    assert rows.tolist() == [0, 3, 1, 5, 4, 2]
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert chosen


def test_a_thin_segment_leaves_the_order_to_the_wider_one() -> None:
    rows, _, chosen = POPULARITY.best(["country:IE"], None, ALL, 3)
    assert rows.tolist() == [3, 1, 0]
    assert chosen


def test_shares_are_shrunk_to_the_wider_segment_as_the_formula_says() -> None:
    rows, scores, _ = POPULARITY.best(["country:GB", "country:GB|device:phone"], None, ALL, 3)
    m = PRIOR_WEIGHT
    country = {row: (own + m * w / 700) / (1000 + m) for row, own, w in ((0, 900, 100), (1, 0, 200), (3, 100, 400))}
    device = {row: ((50 if row == 1 else 0) + m * share) / (50 + m) for row, share in country.items()}
    assert dict(zip(rows.tolist(), scores.tolist(), strict=True)) == pytest.approx(device, rel=1e-5)
    assert rows.tolist() == sorted(device, key=lambda row: -device[row])
    assert sum(device.values()) == pytest.approx(1)


def test_the_page_comes_before_the_segment() -> None:
    page = np.array([False, True, False, True, True, False])
    rows, scores, chosen = POPULARITY.best(["country:GB"], page, ALL, 6)
    assert rows.tolist() == [3, 1, 4, 0, 5, 2]
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert chosen


def test_a_page_of_fewer_is_the_beginning_of_a_longer_one_and_says_whose_it_is() -> None:
    page = np.array([False, True, False, True, True, False])
    for segment, category in ((["country:GB"], page), ([], page), (["country:GB"], None)):
        rows, _, _ = POPULARITY.best(segment, category, ALL, 6)
        for count in range(1, 7):
            found, _, chosen = POPULARITY.best(segment, category, ALL, count)
            assert found.tolist() == rows[:count].tolist() and chosen
    assert not POPULARITY.best([], np.zeros(6, np.bool_), ALL, 6)[2]


@pytest.mark.parametrize("category", [None, np.array([True, False, True, True, False, False])])
@pytest.mark.parametrize("names", [[], ["country:GB"], ["country:GB", "country:GB|device:phone"]])
def test_a_row_scores_by_itself_as_on_a_page(names: list[str], category: Mask | None) -> None:
    rows, scores, _ = POPULARITY.best(names, category, ALL, 6)
    assert POPULARITY.scores(names, category, rows) == pytest.approx(scores)


def test_in_a_large_shop_the_best_are_found_however_far_down() -> None:
    rows = np.random.default_rng(1).permutation(20 * LOOKED_AT).astype(np.int32)
    weights = np.arange(rows.size, 0, -1)
    popularity = Popularity.of(Segment.of(rows, weights), {}, np.zeros(0, np.int64), (0, 0, 0))
    for wanted in (rows[[3, LOOKED_AT - 1, LOOKED_AT, 7 * LOOKED_AT, rows.size - 1]], rows[::9]):
        allowed = np.zeros(rows.size, np.bool_)
        allowed[wanted] = True
        for count in (3, 1_000):
            found, _, _ = popularity.best([], None, allowed, count)
            assert found.tolist() == wanted[:count].tolist()


async def test_the_statistics_are_followed_and_items_that_the_catalogue_lacks_left_out(engine: Engine) -> None:
    index, threads = CatalogueIndex(), ThreadPoolExecutor(1)
    index.apply([CatalogueItem(item_id=item_id) for item_id in "ab"])
    popular = PopularItems(engine, index, threads)

    async def read(*rows: tuple[str, str, int, float]) -> Popularity:
        columns = ("segment", "item_id", "views", "popularity")
        values = [
            {"carts": 2, "purchases": 1, "computed_time_ms": 5} | dict(zip(columns, row, strict=True)) for row in rows
        ]
        with engine.begin() as connection:
            connection.execute(insert(ItemStatistic), values)
        await popular.refresh()
        return popular.current

    first = await read(("", "a", 10, 0.5), ("", "b", 0, 2.0), ("", "gone", 9, 9.0), ("country:GB", "a", 1, 0.5))
    assert first.order.tolist() == [1, 0] and first.events.tolist() == [13, 3] and first.total == 2.5
    assert {name: part.rows.tolist() for name, part in first.segments.items()} == {"country:GB": [0]}
    await popular.refresh()
    assert popular.current is first
    index.apply([CatalogueItem(item_id="gone")])  # it is there after all
    second = await read(("country:GB", "gone", 1, 1.0))
    assert second.order.tolist() == [2, 1, 0] and second.segments["country:GB"].rows.tolist() == [0, 2]
    threads.shutdown()


def test_only_what_is_allowed_and_an_unknown_segment_says_nothing() -> None:
    allowed = np.array([False, True, True, False, False, False])
    rows, _, chosen = POPULARITY.best(["country:FR"], None, allowed, 6)
    assert rows.tolist() == [1, 2]
    assert not chosen


def test_the_time_of_day_counts_and_is_no_segment_of_the_shopper() -> None:
    names = segments("", "", NOON_MS)
    assert names == ["time:afternoon"]
    rows, _, chosen = POPULARITY.best(names, None, ALL, 1)
    assert rows.tolist() == [0]
    assert not chosen


def test_segments_go_from_wide_to_narrow() -> None:
    assert segments("GB", "phone", 0) == ["country:GB", "country:GB|device:phone", "country:GB|device:phone|time:night"]
    assert segments("GB", "", NOON_MS) == ["country:GB", "country:GB|time:afternoon"]
    assert segments("", "phone", 0)[0] == "device:phone"
    assert segments("c" * 64, "d" * 64, 0) == ["country:" + "c" * 64]  # the others' names are too long


def test_popularity_of_rows_is_zero_where_unknown() -> None:
    assert POPULARITY.of_rows(np.array([1, -1, 4, 3], np.int32)).tolist() == [0.5, 0.0, 0.0, 1.0]
    assert NOTHING.of_rows(np.array([-1, 2], np.int32)).tolist() == [0.0, 0.0]
