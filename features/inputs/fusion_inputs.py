"""What is known of a shopper as the fusion model's inputs: the one way there, for the gateway and the skew check."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final

import numpy as np

from features.inputs.codes import CodeVocabularies, context_codes, shopper_codes
from features.inputs.shopper import LongInterest, Shopper
from features.inputs.transform import Array, Floats, Ints, Longs, own_item_features, pad_own_items, pad_sequence
from features.schema import (
    CONTENT_TOKENS,
    FUSION_INPUTS,
    OWN_ITEMS,
    UNKNOWN,
    Tensor,
)

SHOPPER_INPUTS: Final[tuple[Tensor, ...]] = tuple(
    tensor for tensor in FUSION_INPUTS if tensor.name not in ("allowed", "candidates")
)
"""The inputs that speak of the shopper and the moment; the other two speak of what may be answered."""


def shopper_inputs(
    shoppers: Sequence[Shopper],
    *,
    recent_items: Ints,
    recent_content: Ints,
    own_items: Ints,
    codes: CodeVocabularies,
    interest_dim: int,
) -> tuple[Array, ...]:
    """The arrays of `SHOPPER_INPUTS`, in their order, of B shoppers; several together cost little more than one.

    Args:
        recent_items: int32 (n,), item index of each event of each shopper, `UNKNOWN` where the release has none.
        recent_content: int32 (n, CONTENT_TOKENS), content codes of the unknown ones; the others' do not matter.
        own_items: int32 (m,), item index of each of the first `OWN_ITEMS` purchases of each shopper.
        codes, interest_dim: of the release.
    """
    now_ms = np.array([shopper.now_ms for shopper in shoppers], np.int64)
    events = [shopper.events for shopper in shoppers]
    sizes = np.array([len(columns) for columns in events], np.int64)
    ends = sizes.cumsum()
    sequence = pad_sequence(
        recent_items,
        np.array([*chain.from_iterable(columns.types for columns in events)], np.int32),
        np.array([*chain.from_iterable(columns.times_ms for columns in events)], np.int64),
        ends - sizes,
        ends,
        now_ms,
    )
    content = np.zeros((*sequence.items.shape, CONTENT_TOKENS), np.int32)
    unknown = sequence.items == UNKNOWN
    if unknown.any():
        content[unknown] = recent_content[sequence.rows[unknown]]
    interests = [_usable(shopper.interest, interest_dim) for shopper in shoppers]
    nothing = np.zeros(interest_dim, np.float32)
    encoded_ms = np.array([interest.encoded_through_ms if interest else 0 for interest in interests], np.int64)
    known = np.array([interest is not None for interest in interests])
    profiles = [shopper.profile for shopper in shoppers]
    return (
        np.stack([interest.vector if interest else nothing for interest in interests]),
        known[:, None].astype(np.float32),
        np.where(known, np.maximum(now_ms - encoded_ms, 0) / 1000, 0.0)[:, None].astype(np.float32),
        sequence.items,
        sequence.types,
        sequence.ages,
        content,
        *_own_items(shoppers, own_items, now_ms),
        shopper_codes(
            [profile.age for profile in profiles],
            [profile.gender for profile in profiles],
            [profile.country for profile in profiles],
            codes,
        ),
        context_codes(now_ms, [shopper.device for shopper in shoppers], codes),
    )


def _usable(interest: LongInterest | None, interest_dim: int) -> LongInterest | None:
    return interest if interest is not None and interest.vector.size == interest_dim else None


def _own_items(shoppers: Sequence[Shopper], indices: Ints, now_ms: Longs) -> tuple[Ints, Floats]:
    bought = [shopper.purchases.first(OWN_ITEMS) for shopper in shoppers]
    sizes = np.array([len(columns) for columns in bought], np.int64)
    ends = sizes.cumsum()
    features = own_item_features(
        np.array([*chain.from_iterable(columns.counts for columns in bought)], np.float64),
        np.array([*chain.from_iterable(columns.first_ms for columns in bought)], np.float64),
        np.array([*chain.from_iterable(columns.last_ms for columns in bought)], np.float64),
        np.array([shopper.basket_count for shopper in shoppers], np.float64).repeat(sizes),
        now_ms.astype(np.float64).repeat(sizes),
    )
    return pad_own_items(indices, features, ends - sizes, ends)
