"""Metrics against fractions worked out by hand."""

from math import log2

import numpy as np
import pytest

from training.metrics import mean_of_shoppers, ndcg_at, recall_at

HITS = np.zeros((3, 10), bool)
HITS[0, [0, 2]] = True  # two of three
HITS[1, 9] = True  # the only one, at the last place
SIZES = np.array([3, 1, 20])


def test_recall_divides_by_what_could_be_reached() -> None:
    assert recall_at(HITS, SIZES) == pytest.approx([2 / 3, 1.0, 0.0])
    full = np.ones((1, 10), bool)
    assert recall_at(full, np.array([20])) == pytest.approx([1.0])


def test_ndcg_against_the_ideal_ranking() -> None:
    ideal = 1 + 1 / log2(3) + 1 / log2(4)
    assert ndcg_at(HITS, SIZES) == pytest.approx([(1 + 1 / log2(4)) / ideal, 1 / log2(11), 0.0])
    assert ndcg_at(np.ones((1, 10), bool), np.array([20])) == pytest.approx([1.0])


def test_a_shopper_counts_once_however_many_moments() -> None:
    assert mean_of_shoppers(np.array([1.0, 0.0, 0.5]), np.array([4, 4, 9])) == pytest.approx(0.5)
