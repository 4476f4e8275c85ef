"""The shared transform against plain loops, on random input."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.inputs.transform import DAY_S, own_item_features, pad_own_items, pad_sequence
from features.schema import OWN_FEATURES, PADDING

LENGTH = 4
NOW_MS = 1_700_000_000_000
Event = tuple[int, int, int]  # item, type, milliseconds before now

events = st.lists(st.tuples(st.integers(-2, 20), st.integers(1, 7), st.integers(-5_000, 10**12)), max_size=2 * LENGTH)
own = st.lists(st.tuples(st.integers(-2, 20), st.floats(0, 10, width=32)), max_size=2 * LENGTH)


def bounds(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    ends = np.cumsum(lengths, dtype=np.int64)
    return ends - np.asarray(lengths, np.int64), ends


@given(st.lists(events, min_size=1, max_size=5))
def test_a_sequence_is_the_newest_events_right_aligned(examples: list[list[Event]]) -> None:
    flat = [event for example in examples for event in example]
    starts, ends = bounds([len(example) for example in examples])
    got = pad_sequence(
        np.array([item for item, _, _ in flat], np.int32),
        np.array([kind for _, kind, _ in flat], np.int32),
        np.array([NOW_MS - age for _, _, age in flat], np.int64),
        starts,
        ends,
        np.full(len(examples), NOW_MS, np.int64),
        LENGTH,
    )
    for row, example in enumerate(examples):
        kept = example[-LENGTH:]
        missing = LENGTH - len(kept)
        assert got.items[row].tolist() == [PADDING] * missing + [item for item, _, _ in kept]
        assert got.types[row].tolist() == [0] * missing + [kind for _, kind, _ in kept]
        ages = [0.0] * missing + [max(age, 0) / 1000 for _, _, age in kept]
        np.testing.assert_allclose(got.ages[row], ages, rtol=1e-6)
        first = starts[row] + len(example) - len(kept)
        assert got.rows[row].tolist() == [-1] * missing + list(range(first, first + len(kept)))
    assert (got.items.dtype, got.types.dtype, got.ages.dtype) == (np.int32, np.int32, np.float32)


@given(st.lists(own, min_size=1, max_size=5))
def test_own_items_are_left_aligned_and_unknown_ones_are_padding(examples: list[list[tuple[int, float]]]) -> None:
    flat = [pair for example in examples for pair in example]
    starts, ends = bounds([len(example) for example in examples])
    features = np.array([[value] * len(OWN_FEATURES) for _, value in flat], np.float32).reshape(-1, len(OWN_FEATURES))
    items, padded = pad_own_items(np.array([item for item, _ in flat], np.int32), features, starts, ends, LENGTH)
    for row, example in enumerate(examples):
        kept = example[:LENGTH]
        missing = LENGTH - len(kept)
        assert items[row].tolist() == [max(item, PADDING) for item, _ in kept] + [PADDING] * missing
        values = [value if item >= 0 else 0.0 for item, value in kept] + [0.0] * missing
        assert padded[row].tolist() == [[value] * len(OWN_FEATURES) for value in values]


@given(st.integers(1, 50), st.integers(0, 10**11), st.integers(1, 100), st.integers(-9, 10**11))
def test_own_item_features_follow_their_definitions(count: int, span_ms: int, baskets: int, since_ms: int) -> None:
    last_ms = NOW_MS - since_ms
    first_ms = last_ms - (span_ms if count > 1 else 0)
    columns = [np.array([value], np.float64) for value in (count, first_ms, last_ms, baskets, NOW_MS)]
    days_since = max(since_ms, 0) / 1000 / DAY_S
    gap = span_ms / 1000 / DAY_S / (count - 1) if count > 1 else 0.0
    ratio = days_since / max(gap, 1e-3) if gap > 0 else 1.0
    expected = [math.log1p(count), count / baskets, math.log1p(days_since), math.log1p(gap), min(ratio, 10.0)]
    np.testing.assert_allclose(own_item_features(*columns)[0], expected, rtol=1e-5, atol=1e-6)


def test_no_event_at_all_is_padding() -> None:
    none = np.zeros(0, np.int32)
    zero = np.zeros(2, np.int64)
    sequence = pad_sequence(none, none, none.astype(np.int64), zero, zero, zero)
    assert (sequence.items == PADDING).all() and not sequence.types.any() and not sequence.ages.any()
    items, features = pad_own_items(none, np.zeros((0, len(OWN_FEATURES)), np.float32), zero, zero)
    assert (items == PADDING).all() and not features.any()


def test_features_of_extreme_histories_are_finite() -> None:
    counts = np.array([1.0, 2.0, 1e6])
    first = np.array([0.0, NOW_MS - 1.0, 0.0])
    last = np.array([0.0, NOW_MS, NOW_MS])
    assert np.isfinite(own_item_features(counts, first, last, counts, np.full(3, NOW_MS * 1.0))).all()
