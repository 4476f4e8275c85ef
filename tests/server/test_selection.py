"""Diversity: the model's order at 0, and as unlike as possible at 1."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from server.selection import spread_out

UNITS = np.array([[1, 0], [1, 0], [0.9, 0.436], [0, 1], [-1, 0]], np.float32)
SCORES = np.array([5.0, 4.0, 3.0, 2.0, 1.0], np.float32)


def similar_to(place: int) -> npt.NDArray[np.float32]:
    similarity: npt.NDArray[np.float32] = UNITS @ UNITS[place]
    return similarity


def test_no_diversity_is_the_order_of_the_scores() -> None:
    assert spread_out(SCORES, 3, 0.0, similar_to).tolist() == [0, 1, 2]


def test_full_diversity_takes_the_least_similar_next() -> None:
    assert spread_out(SCORES, 3, 1.0, similar_to).tolist() == [0, 4, 3]


def test_some_diversity_passes_over_a_twin() -> None:
    assert spread_out(SCORES, 2, 0.5, similar_to).tolist() == [0, 4]


def test_equal_scores_and_short_lists_are_fine() -> None:
    assert sorted(spread_out(np.ones(5, np.float32), 9, 0.5, similar_to).tolist()) == [0, 1, 2, 3, 4]
    assert spread_out(np.zeros(0, np.float32), 9, 0.5, similar_to).tolist() == []
