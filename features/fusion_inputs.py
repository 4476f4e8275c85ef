"""What is known of a shopper as the fusion model's inputs: the one way there, for the gateway and the skew check."""

from __future__ import annotations

from typing import Final

import numpy as np

from features.codes import CodeVocabularies, context_codes, shopper_codes
from features.schema import (
    CONTENT_TOKENS,
    FUSION_INPUTS,
    OWN_FEATURES,
    OWN_ITEMS,
    PADDING,
    RECENT_EVENTS,
    UNKNOWN,
    Tensor,
)
from features.shopper import LongInterest, Purchase, Shopper
from features.transform import Array, Floats, Ints, own_item_features, pad_own_items, pad_sequence

SHOPPER_INPUTS: Final[tuple[Tensor, ...]] = tuple(
    tensor for tensor in FUSION_INPUTS if tensor.name not in ("allowed", "candidates")
)
"""The inputs that speak of the shopper and the moment; the other two speak of what may be answered."""


def shopper_inputs(
    shopper: Shopper,
    *,
    recent_items: Ints,
    recent_content: Ints,
    own_items: Ints,
    codes: CodeVocabularies,
    interest_dim: int,
) -> tuple[Array, ...]:
    """The arrays of `SHOPPER_INPUTS`, in their order, without batch dimension.

    Args:
        recent_items: int32 (n,), item index of each of `shopper.events`, `UNKNOWN` where the release has none.
        recent_content: int32 (n, CONTENT_TOKENS), content codes of the unknown ones; the others' do not matter.
        own_items: int32 (m,), item index of each of the first `OWN_ITEMS` of `shopper.purchases`.
        codes, interest_dim: of the release.
    """
    now = np.array([shopper.now_ms], np.int64)
    events, interest, profile = shopper.events, _usable(shopper.interest, interest_dim), shopper.profile
    sequence = pad_sequence(
        recent_items,
        np.array([event.event_type for event in events], np.int32),
        np.array([event.time_ms for event in events], np.int64),
        np.zeros(1, np.int64),
        np.array([len(events)], np.int64),
        now,
    )
    content = np.zeros((RECENT_EVENTS, CONTENT_TOKENS), np.int32)
    if events:
        content[-len(events) :] = np.where((recent_items == UNKNOWN)[:, None], recent_content, 0)
    items, features = _own_items(shopper.purchases[:OWN_ITEMS], own_items, shopper)
    return (
        interest.vector if interest else np.zeros(interest_dim, np.float32),
        np.array([interest is not None], np.float32),
        np.array([max(0, shopper.now_ms - interest.encoded_through_ms) / 1000 if interest else 0.0], np.float32),
        sequence.items[0],
        sequence.types[0],
        sequence.ages[0],
        content,
        items,
        features,
        shopper_codes([profile.age], [profile.gender], [profile.country], codes)[0],
        context_codes(np.array([shopper.local_time_ms], np.int64), [shopper.device or None], codes)[0],
    )


def _usable(interest: LongInterest | None, interest_dim: int) -> LongInterest | None:
    return interest if interest is not None and interest.vector.size == interest_dim else None


def _own_items(bought: tuple[Purchase, ...], indices: Ints, shopper: Shopper) -> tuple[Ints, Floats]:
    count = len(bought)
    if not count:
        return np.full(OWN_ITEMS, PADDING, np.int32), np.zeros((OWN_ITEMS, len(OWN_FEATURES)), np.float32)
    features = own_item_features(
        np.array([purchase.count for purchase in bought], np.float64),
        np.array([purchase.first_ms for purchase in bought], np.float64),
        np.array([purchase.last_ms for purchase in bought], np.float64),
        np.full(count, float(shopper.basket_count)),
        np.full(count, float(shopper.now_ms)),
    )
    items, values = pad_own_items(indices, features, np.zeros(1, np.int64), np.array([count], np.int64))
    return items[0], values[0]
