"""The tensors that tell the model of a shopper: each in its row, whoever else is asked for with them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from features.inputs.codes import CodeVocabularies
from features.inputs.fusion_inputs import SHOPPER_INPUTS, shopper_inputs
from features.inputs.shopper import (
    Context,
    Events,
    LongInterest,
    Profile,
    Purchase,
    Purchases,
    Shopper,
    ShopperEvent,
    ShopperFeatures,
    ShopperQuery,
    merge,
)
from features.schema import CONTENT_TOKENS, OWN_ITEMS, PADDING, RECENT_EVENTS, UNKNOWN, EventType

NOON_MS = 1_780_315_200_000
"""A Monday, 12:00 UTC."""
DAY_MS = 86_400_000
CODES = CodeVocabularies(gender={"f": 1}, country={"gb": 2}, device={"phone": 3})
VECTOR = np.array([1.0, 2.0, 3.0], np.float32)


def shopper(row: ShopperFeatures, now_ms: int = NOON_MS, **context: str) -> Shopper:
    query = ShopperQuery(user_id="u", session_id="", now_ms=now_ms, context=Context(**context))  # type: ignore[arg-type]
    return merge([row], query)


ANNA = shopper(
    ShopperFeatures(
        recent=Events.of(
            [
                ShopperEvent("a", "i7", EventType.CART, NOON_MS - 5_000),
                ShopperEvent("b", "unknown", EventType.VIEW, NOON_MS - 2_000),
            ]
        ),
        purchases=Purchases.of([Purchase("i3", 3, NOON_MS - 9 * DAY_MS, NOON_MS - DAY_MS), Purchase("i4", 1, 0, 0)]),
        basket_count=4,
        profile=Profile(30, "f", "GB"),
        interest=LongInterest(VECTOR, NOON_MS - 60_000),
    ),
    device="Phone",
)
BEN = shopper(
    ShopperFeatures(
        recent=Events.of([ShopperEvent("c", "i5", EventType.PURCHASE, NOON_MS + 500)]),
        purchases=Purchases.of([Purchase("i5", 1, NOON_MS, NOON_MS)]),
        basket_count=1,
        interest=LongInterest(VECTOR * 2, NOON_MS + 1_000),  # clocks differ by a little
    ),
    now_ms=NOON_MS - 13 * 3_600_000,
)
STRANGER = shopper(ShopperFeatures())
OF_ANOTHER_SIZE = shopper(ShopperFeatures(interest=LongInterest(np.ones(2, np.float32), NOON_MS)))


def number(item_id: str) -> int:
    return UNKNOWN if item_id == "unknown" else int(item_id[1:])


def inputs(*shoppers: Shopper) -> dict[str, Any]:
    items = np.array([number(item_id) for one in shoppers for item_id in one.events.item_ids], np.int32)
    own = [number(item_id) for one in shoppers for item_id in one.purchases.first(OWN_ITEMS).item_ids]
    arrays = shopper_inputs(
        shoppers,
        recent_items=items,
        recent_content=np.repeat(np.arange(1, items.size + 1, dtype=np.int32)[:, None], CONTENT_TOKENS, 1),
        own_items=np.array(own, np.int32),
        codes=CODES,
        interest_dim=3,
    )
    return {tensor.name: array for tensor, array in zip(SHOPPER_INPUTS, arrays, strict=True)}


def test_what_is_known_of_a_shopper_is_in_their_own_row() -> None:
    found = inputs(STRANGER, ANNA, OF_ANOTHER_SIZE, BEN)
    assert found["long_interest"].tolist() == [[0, 0, 0], [1, 2, 3], [0, 0, 0], [2, 4, 6]]
    assert found["long_mask"].tolist() == [[0], [1], [0], [1]]
    assert found["long_age"].tolist() == [[0], [60], [0], [0]]
    assert [row.tolist() for row in found["recent_items"][:, -3:]] == [
        [PADDING] * 3, [PADDING, 7, UNKNOWN], [PADDING] * 3, [PADDING, PADDING, 5]]  # fmt: skip
    assert found["recent_types"][:, -2:].tolist() == [[0, 0], [2, 1], [0, 0], [0, 4]]
    assert found["recent_ages"][:, -2:].tolist() == [[0, 0], [5, 2], [0, 0], [0, 0]]
    assert found["recent_content"].sum(axis=2)[1].tolist() == [0] * (RECENT_EVENTS - 1) + [2 * CONTENT_TOKENS]
    assert not found["recent_content"][[0, 2, 3]].any()
    assert found["own_items"][:, :3].tolist() == [[-1, -1, -1], [3, 4, -1], [-1, -1, -1], [5, -1, -1]]
    of_anna = [math.log1p(3), 3 / 4, math.log1p(1), math.log1p(4), 1 / 4]
    assert found["own_features"][1, 0].tolist() == pytest.approx(of_anna, rel=1e-5)
    assert found["own_features"][3, 0].tolist() == pytest.approx([math.log1p(1), 1, 0, 0, 1])
    assert found["shopper"].tolist() == [[0, 0, 0], [3, 1, 2], [0, 0, 0], [0, 0, 0]]
    assert found["context"].tolist() == [[13, 1, 0], [13, 1, 3], [13, 1, 0], [24, 7, 0]]


def test_a_shopper_has_the_same_inputs_alone_and_among_others() -> None:
    many = shopper(
        ShopperFeatures(
            recent=Events.of(
                ShopperEvent(f"e{n}", f"i{n}", EventType.VIEW, NOON_MS - 9_000 + n) for n in range(RECENT_EVENTS)
            ),
            purchases=Purchases.of(Purchase(f"i{n}", 1, n, n) for n in range(OWN_ITEMS + 9)),
            basket_count=OWN_ITEMS + 9,
        )
    )
    together = [ANNA, many, STRANGER, BEN, many]
    found = inputs(*together)
    for tensor in SHOPPER_INPUTS:
        expected = np.stack([inputs(one)[tensor.name][0] for one in together])
        assert found[tensor.name].dtype == expected.dtype and found[tensor.name].shape[1:] == tuple(
            3 if size == -1 else size for size in tensor.dims
        )
        if tensor.name != "recent_content":  # made up by place
            np.testing.assert_array_equal(found[tensor.name], expected, err_msg=tensor.name)
