"""The paired bootstrap on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quality.bootstrap import Interval, differences, resampled_sums

EVERY = np.arange(400)


def test_a_constant_difference_is_certain() -> None:
    (found,) = differences(np.full((1, 400), 0.25), EVERY, mean_of_shoppers=False, resamples=999)
    assert (found.value, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert found.p == pytest.approx(2 / 1000)


def test_equal_methods_do_not_differ() -> None:
    (found,) = differences(np.zeros((1, 400)), EVERY, mean_of_shoppers=False, resamples=200)
    assert found == Interval(value=0.0, low=0.0, high=0.0, p=1.0)


def test_the_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(0.1, 1.0, 400)
    (found,) = differences(values[None, :], EVERY, mean_of_shoppers=False, resamples=4000)
    error = values.std() / 400**0.5
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.1 * error
    )


def test_moments_of_one_shopper_are_drawn_together() -> None:
    values = np.random.default_rng(2).normal(0.0, 1.0, 100)
    (alone,) = differences(values[None, :], np.arange(100), mean_of_shoppers=False, resamples=4000)
    (together,) = differences(np.repeat(values, 9)[None, :], np.repeat(np.arange(100), 9), mean_of_shoppers=False)
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.1), "nine copies say no more"


def test_a_shopper_or_a_moment_counts_once_as_the_protocol_says() -> None:
    values, shoppers = np.array([[1.0, 0.0, 0.0, 0.0]]), np.array([5, 9, 9, 9])
    assert differences(values, shoppers, mean_of_shoppers=True, resamples=10)[0].value == pytest.approx(1 / 2)
    assert differences(values, shoppers, mean_of_shoppers=False, resamples=10)[0].value == pytest.approx(1 / 4)


def test_all_differences_stand_on_the_same_draws() -> None:
    values = np.random.default_rng(3).normal(0.0, 1.0, 50)
    first, second = differences(np.stack([values, 2 * values]), np.arange(50), mean_of_shoppers=False, resamples=500)
    assert (second.low, second.high) == pytest.approx((2 * first.low, 2 * first.high))


def test_every_resample_draws_as_many_shoppers_as_there_are() -> None:
    drawn = resampled_sums(np.ones((30, 1)), resamples=50)
    assert drawn.shape == (50, 1) and (drawn == 30).all()
