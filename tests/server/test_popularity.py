"""What is popular: page first, then segment, then the shop, then what nobody has touched."""

from __future__ import annotations

import numpy as np

from server.popularity import Popularity, SegmentOrder

POPULARITY = Popularity(
    {
        "": SegmentOrder(np.array([3, 1, 0], np.int32), np.array([1.0, 0.5, 0.25], np.float32)),
        "country:GB": SegmentOrder(np.array([0, 3], np.int32), np.array([1.0, 0.5], np.float32)),
    },
    (0, 0, 0),
)
ALL = np.ones(6, np.bool_)


def test_the_whole_shop_in_order_and_then_the_newest() -> None:
    rows, scores, chosen = POPULARITY.best("", None, ALL, 10)
    assert rows.tolist() == [3, 1, 0, 5, 4, 2]
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert not chosen


def test_the_segment_comes_first_and_every_row_once() -> None:
    rows, scores, chosen = POPULARITY.best("country:GB", None, ALL, 4)
    assert rows.tolist() == [0, 3, 1, 5]
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert chosen


def test_the_page_comes_before_the_segment() -> None:
    page = np.array([False, True, False, True, True, False])
    rows, _, chosen = POPULARITY.best("country:GB", page, ALL, 6)
    assert rows.tolist() == [3, 1, 4, 0, 5, 2]
    assert chosen


def test_only_what_is_allowed_and_an_unknown_segment_chooses_nothing() -> None:
    rows, _, chosen = POPULARITY.best("country:FR", None, np.array([False, True, True, False, False, False]), 6)
    assert rows.tolist() == [1, 2]
    assert not chosen


def test_popularity_of_rows_is_zero_where_unknown() -> None:
    assert POPULARITY.of_rows(np.array([1, -1, 4, 3], np.int32)).tolist() == [0.5, 0.0, 0.0, 1.0]
    assert Popularity({}, (0, 0, 0)).of_rows(np.array([-1, 2], np.int32)).tolist() == [0.0, 0.0]
