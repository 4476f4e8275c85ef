"""What is learned from and asked, how scores become a ranking, and the figures of one."""

from dataclasses import replace
from math import log2
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.schema import OWN_ITEMS, EventType
from tests.training.shops import DAY_MS, START_MS, Row, catalogue, write_shop
from tests.training.test_baselines import BASKETS, END_MS, order
from training.dataset import read_log
from training.evaluate import MomentChoice, Protocol, Stage, measure, rank, stage_by_time


def test_a_test_set_holds_first_moments_of_known_shoppers_and_frequent_items_alone(tmp_path: Path) -> None:
    rows = BASKETS + order("a", 22, 1) + order("c", 21, 1)
    events, moments = read_log(write_shop(tmp_path, rows))
    split = START_MS + 15 * DAY_MS
    every = stage_by_time(events, moments, split, END_MS, Protocol()).test
    assert len(every.moments) == 3
    protocol = Protocol(moments=MomentChoice.FIRST, min_item_moments=2, known_shoppers=True)
    test = stage_by_time(events, moments, split, END_MS, protocol).test
    assert np.flatnonzero(test.allowed).tolist() == [1, 4]
    assert (test.moments.targets.tolist(), test.repeated.tolist()) == ([1], [True])


def test_what_was_bought_before_the_split_and_known_only_later_is_not_learned(tmp_path: Path) -> None:
    split, later = START_MS + 15 * DAY_MS, START_MS + 16 * DAY_MS
    folder = write_shop(tmp_path, order("a", 3, 1, 2) + order("a", 5, 3) + order("b", 4, 4) + order("b", 20, 5))
    events = pl.read_parquet(folder / "events.parquet")
    late = pl.col("item_id") == "i003"
    events.with_columns(
        pl.when(late).then(later).otherwise(pl.col(name)).alias(name) for name in ("arrival_time_ms", "known_time_ms")
    ).write_parquet(folder / "events.parquet")
    log, moments = read_log(folder)
    stage = stage_by_time(log, moments, split, END_MS, Protocol())
    assert stage.moments.targets.tolist() == [1, 2, 4]
    assert stage.test.moments.targets.tolist() == [5]
    assert stage_by_time(log, moments, later, END_MS, Protocol()).moments.targets.tolist() == [1, 2, 4, 3]


def test_figures_of_a_ranking_by_hand(tmp_path: Path) -> None:
    stage = stage_by_time(*read_log(write_shop(tmp_path, BASKETS)), START_MS + 15 * DAY_MS, END_MS, Protocol())
    ranked = np.array([[7, 1, 8, 5, 9, 10, 11, 12, 13, 14]], np.int32)  # bought: 1 (again) and 5 (new)
    found = measure(stage.test, ranked)
    ideal = 1 + 1 / log2(3)
    assert found["recall@10"] == 1.0
    assert found["ndcg@10"] == pytest.approx((1 / log2(3) + 1 / log2(5)) / ideal)
    assert found["repeat_ndcg@10"] == pytest.approx(1 / log2(3))
    assert found["explore_ndcg@10"] == pytest.approx(1 / log2(5))


def test_a_repeat_is_any_item_that_the_shopper_bought_before_however_many_they_were(tmp_path: Path) -> None:
    often = [order("a", day, *range(1, OWN_ITEMS + 1)) for day in (2, 3)]
    rows = [*order("a", 1, 199), *often[0], *often[1], *order("a", 20, 198, 199)]
    log, moments = read_log(write_shop(tmp_path, rows, catalogue(200)))
    test = stage_by_time(log, moments, START_MS + 15 * DAY_MS, END_MS, Protocol()).test
    assert (test.moments.targets.tolist(), test.repeated.tolist()) == ([198, 199], [False, True])


def test_where_events_are_asked_for_a_repeat_is_an_item_that_the_shopper_had_an_event_on(tmp_path: Path) -> None:
    days = {1: "i001", 2: "i002", 20: "i001", 21: "i003"}
    rows: list[Row] = [("u:a", item, EventType.VIEW, START_MS + day * DAY_MS, None, None) for day, item in days.items()]
    log, moments = read_log(write_shop(tmp_path, rows))
    test = stage_by_time(log, moments, START_MS + 15 * DAY_MS, END_MS, Protocol()).test
    assert (test.moments.targets.tolist(), test.repeated.tolist()) == ([1, 3], [True, False])


def stage_masking(folder: Path, *, masked: bool) -> Stage:
    stage = stage_by_time(*read_log(write_shop(folder, BASKETS)), START_MS + 15 * DAY_MS, END_MS, Protocol())
    return replace(stage, test=replace(stage.test, seen_masked=masked))


def test_the_best_allowed_items_come_first_and_equal_ones_in_the_order_of_the_catalogue(tmp_path: Path) -> None:
    stage = stage_masking(tmp_path, masked=False)
    scores = np.zeros((1, 40), np.float32)
    scores[0, [9, 7, 4, 30]] = [2.0, 3.0, 2.0, 5.0]
    allowed = np.ones(40, bool)
    allowed[30] = False
    stage = replace(stage, test=replace(stage.test, allowed=allowed))
    assert rank(lambda moments: scores, stage, 3)[0].tolist() == [7, 4, 9]


def test_items_seen_before_the_moment_are_not_ranked_where_they_are_masked(tmp_path: Path) -> None:
    stage = stage_masking(tmp_path, masked=True)  # asked of the shopper who had bought 1, 2 and 3
    scores = -np.arange(40, dtype=np.float32)[None, :]
    assert rank(lambda moments: scores, stage, 4)[0].tolist() == [0, 4, 5, 6]


def test_a_sample_of_a_test_keeps_what_belongs_to_its_moments(tmp_path: Path) -> None:
    rows = [row for day in range(20, 60) for row in order("a", day, day % 40, (day + 7) % 40)]
    stage = stage_by_time(*read_log(write_shop(tmp_path, BASKETS + rows)), START_MS + 15 * DAY_MS, END_MS, Protocol())
    sample = stage.test.sample(10)
    assert (len(sample.moments), len(sample.repeated)) == (10, len(sample.moments.targets))
    whole = {int(time): row for row, time in enumerate(stage.test.moments.times_ms)}
    for row, time in enumerate(sample.moments.times_ms):
        start, end = stage.test.moments.offsets[whole[int(time)] :][:2]
        own = slice(*sample.moments.offsets[row : row + 2])
        assert sample.moments.targets[own].tolist() == stage.test.moments.targets[start:end].tolist()
        assert sample.repeated[own].tolist() == stage.test.repeated[start:end].tolist()
