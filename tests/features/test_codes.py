"""Attributes as codes: the edges, the unknown, and the clock."""

from datetime import datetime, timezone

import numpy as np

from features.inputs.codes import MOST_CODES, CodeVocabularies, context_codes, fit_codes, shopper_codes

NONE = CodeVocabularies(gender={}, country={}, device={})


def test_age_codes_begin_at_the_edges() -> None:
    ages = [None, 0, 17, 18, 24, 25, 64, 65, 120, float("nan")]
    codes = shopper_codes(ages, [None] * 10, [None] * 10, NONE)
    assert codes[:, 0].tolist() == [0, 0, 1, 2, 2, 3, 6, 7, 7, 0]
    assert codes.dtype == np.int32


def test_values_are_compared_in_lower_case_and_unknown_ones_are_zero() -> None:
    known = CodeVocabularies(gender={"female": 1}, country={"gb": 2}, device={"mobile": 1})
    codes = shopper_codes([None, None], ["Female", "x"], ["GB", None], known)
    assert codes.tolist() == [[0, 1, 2], [0, 0, 0]]


def test_hour_and_weekday_are_read_from_the_clock() -> None:
    monday = datetime(2026, 6, 1, 0, 30, tzinfo=timezone.utc)
    sunday = datetime(2026, 6, 7, 23, 59, tzinfo=timezone.utc)
    times = np.array([int(moment.timestamp() * 1000) for moment in (monday, sunday)])
    known = CodeVocabularies(gender={}, country={}, device={"mobile": 1})
    assert context_codes(times, ["Mobile", None], known).tolist() == [[1, 1, 1], [24, 7, 0]]


def test_no_shoppers_give_no_rows() -> None:
    assert shopper_codes([], [], [], NONE).shape == (0, 3)
    assert context_codes(np.zeros(0, np.int64), [], NONE).shape == (0, 3)


def test_frequent_values_get_the_low_codes_and_rare_ones_none() -> None:
    values = ["DE"] * 3 + ["gb"] * 5 + ["FR"] + [None, ""]
    assert fit_codes(values, min_count=2) == {"gb": 1, "de": 2}
    assert fit_codes([], min_count=1) == {}
    assert len(fit_codes([f"device {number}" for number in range(2 * MOST_CODES)], min_count=1)) == MOST_CODES


def test_codes_that_a_model_was_trained_on_stay_and_new_ones_follow_them() -> None:
    old = CodeVocabularies(gender={"f": 1, "m": 2}, country={"gb": 1}, device={})
    new = CodeVocabularies(gender={"m": 1, "x": 2, "f": 3, "d": 4}, country={}, device={"phone": 1})
    grown = CodeVocabularies(gender={"f": 1, "m": 2, "x": 3, "d": 4}, country={"gb": 1}, device={"phone": 1})
    assert old.grown(new) == grown
