"""Figures of rankings against fractions worked out by hand."""

from __future__ import annotations

from math import log2
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.calibration import reliability
from benchmarks.quality.figures import moment_figures, spread, summarise
from benchmarks.quality.folders import SplitBy, open_task
from benchmarks.quality.lists import Shelf, gini
from benchmarks.quality.ranking import Answers, answer
from benchmarks.quality.task import Task
from tests.benchmarks.made_up import movielens_folder, session_folder
from training.metrics import hits_of, mrr_at
from training.moments import Moments

USERS = [[1, 2, 3, 4], [1, 2, 5, 3], [1, 6, 2, 5], [*range(1, 9)]]
"""Learned: 1 2, 1 2, 1 6, 1 to 6. Asked: 4, 3, 5 and 8."""


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return open_task(str(movielens_folder(tmp_path, USERS)), SplitBy.LEAVE_ONE_OUT, tmp_path)


def row_of(task: Task, *ids: int) -> list[int]:
    return [task.log.catalogue["item_id"].to_list().index(str(item)) for item in ids]


def test_hits_are_the_targets_of_their_own_moment() -> None:
    ranked = np.array([[3, 1, 0], [0, 3, -1], [-1, -1, -1]], np.int32)
    hits = hits_of(ranked, np.array([1, 3, 2, 3], np.int32), np.array([0, 2, 3, 4]))
    assert hits.tolist() == [[True, True, False], [False, False, False], [False, False, False]]


def test_mrr_is_one_over_the_place_of_the_first_hit() -> None:
    hits = np.array([[False, True, True], [False, False, False], [False, False, True]])
    assert mrr_at(hits, 3) == pytest.approx([1 / 2, 0.0, 1 / 3])
    assert mrr_at(hits, 2) == pytest.approx([1 / 2, 0.0, 0.0])


def test_figures_at_every_place(task: Task) -> None:
    ranked = np.zeros((4, 8), np.int32)
    target = task.final.test.moments.targets
    others = [[item for item in range(8) if item != wanted] for wanted in target]
    for at, place in enumerate((0, 2, 6)):  # the target stands at places 1, 3 and 7; of the last moment nowhere
        ranked[at] = others[at][:place] + [int(target[at])] + others[at][place:]
    ranked[3] = -1
    found, rows = moment_figures(task.final.test, ranked)
    assert rows.tolist() == [0, 1, 2, 3]
    assert found["recall@5"].tolist() == found["hr@5"].tolist() == [1, 1, 0, 0]
    assert found["hr@10"].tolist() == [1, 1, 1, 0]
    assert found["ndcg@10"] == pytest.approx([1, 1 / log2(4), 1 / log2(8), 0])
    assert found["mrr@20"] == pytest.approx([1, 1 / 3, 1 / 7, 0])


def test_repeats_and_history_groups_stand_apart(tmp_path: Path) -> None:
    folder = session_folder(tmp_path, ["1 2 3"] * 10, ["1 2\t1", "1\t2", "1 2 3 1 2 3\t2"])
    task = open_task(str(folder), SplitBy.LEAVE_ONE_OUT, tmp_path)
    test = task.final.test
    assert test.repeated.tolist() == [False, True, True]  # in order of time: 2 after 1; 1 after 1 2; 2 after 1 2 3 ...
    ranked = np.array([[1, 0, 2], [2, 0, 1], [0, 2, 1]], np.int32)  # the target at places 1, 2 and 3
    found = summarise(task, Answers(ranked=ranked, probabilities=None), Shelf(task.final))
    assert found["mrr@20"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert found["explore_mrr@20"] == 1.0
    assert found["repeat_mrr@20"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert (found["cold_moments"], found["short_moments"], found["warm_moments"]) == (0, 2, 1)
    assert found["short_mrr@20"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["warm_mrr@20"] == pytest.approx(1 / 3)
    assert "cold_mrr@20" not in found and "calibration_error" not in found


def test_coverage_novelty_and_gini_of_lists(task: Task) -> None:
    one, two, three = row_of(task, 1, 2, 3)
    found = Shelf(task.final).figures(np.array([[one, two], [one, three], [one, -1], [one, two]], np.int32))
    assert found["coverage"] == pytest.approx(3 / 8)
    # learned: 12 events; 4 of item 1, 3 of item 2, 1 of item 3
    novelty = (4 * -log2(4 / 12) + 2 * -log2(3 / 12) + 1 * -log2(1 / 12)) / 7
    assert found["novelty"] == pytest.approx(novelty)
    counts = sorted([4, 2, 1, 0, 0, 0, 0, 0])
    pairs = sum(abs(left - right) for left in counts for right in counts)
    assert found["gini"] == pytest.approx(pairs / (2 * 8 * 7))


def test_diversity_is_one_less_the_mean_cosine_of_the_items_shoppers(task: Task) -> None:
    one, two, six, eight = row_of(task, 1, 2, 6, 8)
    # shoppers: item 1 of all four, item 2 of three, item 6 of two, one of which has item 2; nobody learned item 8
    lists = np.array([[one, two, six], [one, eight, -1], [one, -1, -1]], np.int32)
    first = (3 / (4 * 3) ** 0.5 + 2 / (4 * 2) ** 0.5 + 1 / (3 * 2) ** 0.5) / 3
    assert Shelf(task.final).figures(lists)["diversity"] == pytest.approx(1 - (first + 0) / 2, abs=1e-6)


def test_gini_is_zero_of_equals_and_nears_one_where_one_has_all() -> None:
    assert gini(np.array([3, 3, 3, 3])) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 5])) == pytest.approx(3 / 4)


def test_calibration_error_is_the_mean_distance_over_bins_of_equal_counts() -> None:
    probabilities = np.array([[0.8, 0.1], [0.6, 0.2]], np.float32)
    hits = np.array([[True, False], [True, True]])
    curve = reliability(probabilities, hits, np.array([1, 2]), bins=2)
    # the lower two: 0.1 and 0.2 said, 0 and 1/2 came; the upper two: 0.6 and 0.8 said, 1/2 and 1 came
    assert curve.said == pytest.approx([0.15, 0.7])
    assert curve.came == pytest.approx([0.25, 0.75])
    assert curve.counts.tolist() == [2, 2]
    assert curve.error == pytest.approx((0.1 + 0.05) / 2)


def test_probabilities_are_the_softmax_over_what_may_be_ranked(task: Task) -> None:
    logits = np.log(np.arange(1.0, 9.0)).astype(np.float32)

    def scorer(asked: Moments) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        return np.tile(logits, (len(asked), 1))

    answers = answer(scorer, task.final, gives_probabilities=True)
    assert answers.probabilities is not None
    seen = set(row_of(task, 1, 2, 3))  # of the first user
    left = sorted(set(range(8)) - seen, reverse=True)
    assert answers.ranked[0, :5].tolist() == left
    total = sum(item + 1 for item in left)
    assert answers.probabilities[0, :5] == pytest.approx([(item + 1) / total for item in left], rel=1e-5)
    assert answers.probabilities[0, 5:].tolist() == [0, 0, 0]
    without = answer(scorer, task.final, gives_probabilities=False)
    assert without.probabilities is None and (without.ranked == answers.ranked).all()


def test_spread_is_the_deviation_over_seeds() -> None:
    assert spread([{"a": 1.0}, {"a": 2.0}, {"a": 3.0}]) == {"a": 1.0}
    assert spread([{"a": 1.0}]) == {"a": 0.0}
