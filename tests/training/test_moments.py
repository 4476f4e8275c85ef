"""Which moments a log gives, and that nothing at or behind a moment enters it."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.schema import UNKNOWN, EventType
from tests.training.shops import DAY_MS, MINUTE_MS, START_MS, Row, write_shop
from training.dataset import DataError, read_log

VIEW, CART, PURCHASE = EventType.VIEW, EventType.CART, EventType.PURCHASE


def test_a_visit_is_decided_by_its_first_cart(tmp_path: Path) -> None:
    rows: list[Row] = [
        ("u:a", "i001", VIEW, START_MS, None, "s1"),
        ("u:a", "i002", CART, START_MS + MINUTE_MS, None, "s1"),
        ("u:a", "i003", VIEW, START_MS + 2 * MINUTE_MS, None, "s1"),
        ("u:a", "i002", PURCHASE, START_MS + 3 * MINUTE_MS, "o1", "s1"),
        ("u:a", "i004", PURCHASE, START_MS + 3 * MINUTE_MS, "o1", "s1"),
    ]
    log, moments = read_log(write_shop(tmp_path, rows))
    assert moments.times_ms.tolist() == [START_MS + MINUTE_MS]
    assert moments.targets_of(0).tolist() == [2, 4]
    assert log.rows_before(moments.shoppers, moments.times_ms).tolist() == [1]


def test_orders_without_sessions_are_baskets_of_their_own(tmp_path: Path) -> None:
    rows: list[Row] = [
        ("u:a", "i001", PURCHASE, START_MS, "o1", None),
        ("u:a", "i002", PURCHASE, START_MS, "o1", None),
        ("u:a", "i002", PURCHASE, START_MS + MINUTE_MS, "o2", None),
        ("u:b", "i003", PURCHASE, START_MS, "o1", None),
    ]
    _, moments = read_log(write_shop(tmp_path, rows))
    baskets = sorted((int(moments.shoppers[at]), moments.targets_of(at).tolist()) for at in range(len(moments)))
    assert baskets == [(0, [1, 2]), (0, [2]), (1, [3])]


def test_a_visit_without_a_session_is_decided_by_its_first_cart_as_well(tmp_path: Path) -> None:
    rows: list[Row] = [
        ("u:a", "i001", VIEW, START_MS, None, None),
        ("u:a", "i002", CART, START_MS + MINUTE_MS, None, None),
        ("u:a", "i002", PURCHASE, START_MS + 2 * MINUTE_MS, None, None),
        ("u:a", "i003", PURCHASE, START_MS + DAY_MS, None, None),
    ]
    log, moments = read_log(write_shop(tmp_path, rows))
    assert moments.times_ms.tolist() == [START_MS + MINUTE_MS, START_MS + DAY_MS]
    assert log.rows_before(moments.shoppers, moments.times_ms).tolist() == [1, 3]


def test_an_order_without_a_session_is_decided_by_the_first_cart_of_its_own_items(tmp_path: Path) -> None:
    rows: list[Row] = [
        ("u:a", "i001", CART, START_MS, None, None),
        ("u:a", "i002", CART, START_MS + MINUTE_MS, None, None),
        ("u:a", "i003", CART, START_MS + 2 * MINUTE_MS, None, None),
        ("u:a", "i002", PURCHASE, START_MS + 3 * MINUTE_MS, "o1", None),
        ("u:a", "i003", PURCHASE, START_MS + 3 * MINUTE_MS, "o1", None),
        ("u:a", "i001", PURCHASE, START_MS + 4 * MINUTE_MS, "o2", None),
        ("u:a", "i001", CART, START_MS + DAY_MS, None, None),
        ("u:a", "i004", PURCHASE, START_MS + DAY_MS + MINUTE_MS, "o3", None),
    ]
    _, moments = read_log(write_shop(tmp_path, rows))
    assert [moments.targets_of(at).tolist() for at in range(len(moments))] == [[1], [2, 3], [4]]
    assert moments.times_ms.tolist() == [START_MS, START_MS + MINUTE_MS, START_MS + DAY_MS + MINUTE_MS]


def test_a_log_without_purchases_makes_every_event_a_moment(tmp_path: Path) -> None:
    rows: list[Row] = [("u:a", f"i00{at}", VIEW, START_MS + at * DAY_MS, None, None) for at in range(3)]
    _, moments = read_log(write_shop(tmp_path, rows))
    assert moments.targets.tolist() == [0, 1, 2]


def test_an_item_that_the_catalogue_lacks_is_unknown_and_never_a_target(tmp_path: Path) -> None:
    rows: list[Row] = [
        ("u:a", "gone", PURCHASE, START_MS, "o1", None),
        ("u:a", "i001", PURCHASE, START_MS + DAY_MS, "o2", None),
    ]
    log, moments = read_log(write_shop(tmp_path, rows))
    assert log.items.tolist() == [UNKNOWN, 1]
    assert moments.targets.tolist() == [1]


def test_impressions_and_searches_are_no_part_of_a_sequence(tmp_path: Path) -> None:
    rows: list[Row] = [
        ("u:a", "i001", EventType.IMPRESSION, START_MS, None, None),
        ("u:a", None, EventType.SEARCH, START_MS, None, None),
        ("u:a", "i001", VIEW, START_MS, None, None),
    ]
    log, _ = read_log(write_shop(tmp_path, rows))
    assert log.types.tolist() == [VIEW]


@pytest.mark.parametrize("name", ["events.parquet", "items.parquet", "users.parquet"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write_shop(tmp_path, [("u:a", "i001", VIEW, START_MS, None, None)]) / name).unlink()
    with pytest.raises(DataError, match=name):
        read_log(tmp_path)


def test_an_empty_log_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no events"):
        read_log(write_shop(tmp_path, []))


def test_taking_moments_keeps_their_targets(offline: Path) -> None:
    _, moments = read_log(offline)
    rows = np.random.default_rng(0).permutation(len(moments))[:20]
    taken = moments.take(rows)
    assert [taken.targets_of(at).tolist() for at in range(20)] == [moments.targets_of(row).tolist() for row in rows]


def test_moments_stand_in_order_of_time(offline: Path) -> None:
    _, moments = read_log(offline)
    assert pl.Series(moments.times_ms).is_sorted()
