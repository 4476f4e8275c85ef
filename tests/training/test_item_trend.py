"""Trends are shares of the shop's sales in the days before a midnight, and see nothing after it."""

from __future__ import annotations

import numpy as np
import pytest

from training.item_trend import TREND_DAYS, ItemTrend
from training.moments import DAY_MS, Moments

NOON = DAY_MS // 2


def sales(*sold: tuple[int, list[int]]) -> Moments:
    """One moment for each (day, items), at noon."""
    return Moments(
        shoppers=np.zeros(len(sold), np.int64),
        times_ms=np.array([day * DAY_MS + NOON for day, _ in sold], np.int64),
        targets=np.array([item for _, items in sold for item in items], np.int32),
        offsets=np.cumsum([0] + [len(items) for _, items in sold]).astype(np.int64),
    )


def test_a_trend_is_the_smoothed_share_of_what_was_sold_in_the_days_before() -> None:
    trend = ItemTrend.of(sales((100, [0, 1]), (103, [0]), (106, [0, 2])), 3)
    found = trend.at(np.array([0, 1, 2], np.int32), np.full(3, 109 * DAY_MS + NOON))
    # on day 107, the last that is counted from, seven days reach back to day 100: five sales
    share = np.array([3.5, 1.5, 1.5]) / (5 + 0.5 * 3)
    np.testing.assert_allclose(found, np.repeat(np.log(share * 3)[:, None], len(TREND_DAYS), 1), rtol=1e-6)


def test_a_short_window_forgets_what_a_long_one_still_counts() -> None:
    trend = ItemTrend.of(sales((0, [0] * 10), (20, [1] * 10)), 2)
    weeks = dict(zip(TREND_DAYS, trend.at(np.array([0], np.int32), np.array([21 * DAY_MS]))[0], strict=True))
    assert weeks[7] == pytest.approx(np.log(0.5 / 11 * 2), rel=1e-6)
    assert weeks[28] == pytest.approx(0.0, abs=1e-6)


def test_what_is_sold_on_the_day_itself_or_later_is_not_seen() -> None:
    past = sales((1, [0]), (2, [1]))
    more = sales((1, [0]), (2, [1]), (3, [0] * 50), (4, [0] * 50))
    asked = np.array([0, 1], np.int32), np.full(2, 3 * DAY_MS + NOON)
    np.testing.assert_array_equal(ItemTrend.of(past, 2).at(*asked), ItemTrend.of(more, 2).at(*asked))


def test_the_newest_trends_are_those_after_the_last_sale() -> None:
    trend = ItemTrend.of(sales((1, [0]), (5, [1, 1])), 2)
    after = trend.at(np.array([0, 1], np.int32), np.full(2, 6 * DAY_MS))
    np.testing.assert_array_equal(trend.newest(), after)
    assert after[1, 0] > after[0, 0]


def test_no_sales_and_no_item_are_average() -> None:
    nothing = sales()
    np.testing.assert_array_equal(ItemTrend.of(nothing, 2).newest(), np.zeros((2, len(TREND_DAYS))))
    trend = ItemTrend.of(sales((1, [0])), 2).at(np.array([-2, -1], np.int32), np.full(2, 9 * DAY_MS))
    np.testing.assert_array_equal(trend, np.zeros((2, len(TREND_DAYS))))
