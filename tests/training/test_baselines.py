"""Baselines on logs small enough to work out by hand, and the measure that they share with the model."""

from math import log2
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from features.schema import EventType
from tests.training.shops import DAY_MS, START_MS, Row, write_shop
from training.baselines import (
    ease,
    frequency_ranker,
    item_knn,
    measure_baselines,
    popularity_ranker,
    similarity_ranker,
    weighted_events,
)
from training.dataset import read_log
from training.evaluate import MomentChoice, Protocol, make_test_set, measure, split_times
from training.moments import popularity_scores

ALL = np.ones(40, np.float32)
PURCHASE = EventType.PURCHASE


def order(shopper: str, day: int, *items: int) -> list[Row]:
    return [(f"u:{shopper}", f"i{item:03d}", PURCHASE, START_MS + day * DAY_MS, f"o{day}", None) for item in items]


BASKETS = order("a", 0, 1, 2) + order("a", 10, 1, 3) + order("b", 5, 4) + order("b", 9, 4) + order("a", 20, 1, 5)


def test_popularity_halves_with_age(tmp_path: Path) -> None:
    log, moments = read_log(write_shop(tmp_path, BASKETS))
    scores = popularity_scores(moments, log.item_count, half_life_days=10.0)
    assert scores[[1, 4, 5]] == pytest.approx([2**-2 + 2**-1 + 1, 2**-1.5 + 2**-1.1, 1.0])
    ranked = popularity_ranker(log, START_MS + 11 * DAY_MS, moments, 1000.0, ALL)(moments)
    assert ranked.shape == (5, 10)
    assert set(ranked[0, :2].tolist()) == {1, 4}


def test_personal_frequency_ranks_what_was_bought_most_often_then_what_is_popular(tmp_path: Path) -> None:
    log, moments = read_log(write_shop(tmp_path, BASKETS))
    last = moments.between(START_MS + 20 * DAY_MS, START_MS + 21 * DAY_MS)
    ranked = frequency_ranker(log, START_MS + 20 * DAY_MS, moments, 1000.0, ALL)(last)
    assert ranked[0, 0] == 1
    assert set(ranked[0, 1:3].tolist()) == {2, 3}
    assert ranked[0, 3] == 4
    refused = ALL.copy()
    refused[1] = 0
    assert 1 not in frequency_ranker(log, START_MS + 20 * DAY_MS, moments, 1000.0, refused)(last)


def test_item_knn_is_the_shrunk_cosine() -> None:
    matrix = sparse.csr_matrix(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]], np.float32))
    found = item_knn(matrix, np.arange(3, dtype=np.int32), shrink=0.0).weights
    assert found[0] == pytest.approx([0.0, 2 / 6**0.5, 1 / 3**0.5])


def test_ease_is_the_ridge_regression_of_each_item_on_the_others() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.random((30, 5)) < 0.4).astype(np.float32)
    found = ease(sparse.csr_matrix(rows), np.arange(5, dtype=np.int32), ridge=2.0).weights
    for item in range(5):
        others = [other for other in range(5) if other != item]
        x = rows[:, others]
        expected = np.linalg.solve(x.T @ x + 2.0 * np.eye(4), x.T @ rows[:, item])
        assert found[others, item] == pytest.approx(expected, abs=1e-4)
        assert found[item, item] == 0


def test_a_similarity_ranks_by_weighted_events_and_counts_the_items_themselves_on_request(tmp_path: Path) -> None:
    log, moments = read_log(write_shop(tmp_path, BASKETS))
    last = moments.between(START_MS + 20 * DAY_MS, START_MS + 21 * DAY_MS)
    events = weighted_events(log, last, 10.0).toarray()[0]
    assert events[[1, 2, 3]] == pytest.approx([2**-2 + 2**-1, 2**-2, 2**-1])
    similarity = item_knn(sparse.csr_matrix(np.eye(40, dtype=np.float32)), np.arange(40, dtype=np.int32))
    assert similarity_ranker(log, similarity, 10.0, 1.0, ALL)(last)[0, :3].tolist() == [1, 3, 2]


def test_a_test_set_holds_first_moments_of_known_shoppers_and_frequent_items_alone(tmp_path: Path) -> None:
    rows = BASKETS + order("a", 22, 1) + order("c", 21, 1)
    log, moments = read_log(write_shop(tmp_path, rows))
    split = START_MS + 15 * DAY_MS
    every = make_test_set(log, moments, split, 1 << 60, Protocol())
    assert len(every.moments) == 3
    protocol = Protocol(moments=MomentChoice.FIRST, min_item_moments=2, known_shoppers=True)
    test = make_test_set(log, moments, split, 1 << 60, protocol)
    assert np.flatnonzero(test.allowed).tolist() == [1, 4]
    assert (test.moments.targets.tolist(), test.repeated.tolist()) == ([1], [True])


def test_figures_of_a_ranking_by_hand(tmp_path: Path) -> None:
    log, moments = read_log(write_shop(tmp_path, BASKETS))
    test = make_test_set(log, moments, START_MS + 15 * DAY_MS, 1 << 60, Protocol())
    ranked = np.array([[7, 1, 8, 5, 9, 10, 11, 12, 13, 14]], np.int32)  # bought: 1 (again) and 5 (new)
    found = measure(test, ranked)
    ideal = 1 + 1 / log2(3)
    assert found["recall@10"] == 1.0
    assert found["ndcg@10"] == pytest.approx((1 / log2(3) + 1 / log2(5)) / ideal)
    assert found["repeat_ndcg@10"] == pytest.approx(1 / log2(3))
    assert found["explore_ndcg@10"] == pytest.approx(1 / log2(5))


def test_every_baseline_is_measured(offline: Path) -> None:
    log, moments = read_log(offline)
    validation_from, test_from = split_times(moments, None)
    validation = make_test_set(log, moments, validation_from, test_from, Protocol(sample=30))
    test = make_test_set(log, moments, test_from, 1 << 60, Protocol(sample=30))
    found = measure_baselines(log, moments, validation, validation_from, test, test_from)
    assert list(found) == ["popularity", "personal frequency", "item-kNN", "EASE"]
    assert all(0.0 <= row["ndcg@10"] <= 1.0 for row in found.values())
    assert found["personal frequency"]["ndcg@10"] > found["popularity"]["ndcg@10"]
