"""What speaks for an item is what its score falls without or what is near it, and what carried it has a name."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from features.inputs.fusion_inputs import SHOPPER_INPUTS
from features.inputs.shopper import (
    Events,
    LongInterest,
    Purchase,
    Purchases,
    Shopper,
    ShopperEvent,
    ShopperFeatures,
    ShopperQuery,
    merge,
)
from features.schema import PADDING, RECENT_EVENTS, TOP_ITEMS, EventType
from features.shop.catalogue import CatalogueItem
from server.catalogue.catalogue_index import CatalogueIndex, Rows
from server.deadline import Deadline
from server.hydrate.fusion_request import FusionRequest, candidates_of
from server.infer.triton import FusionAnswer
from server.queries import Reason, Strand
from server.releases.loaded_release import LoadedRelease
from server.select.reasons import reasons_of
from tests.server.test_best_allowed import DIM, NOW_MS, Case, loaded

ITEMS = 10
SPEAKS_FOR = {
    5: {0: 0.5, 1: 0.3, 2: 0.2, 3: 0.1},
    6: {3: 0.02, 1: 0.005},  # the second is too little
    7: {},
    8: {2: -0.4, 1: 0.2},  # what speaks against it is no reason
}
"""By how much the events on an item lift the score of another."""
CASE = Case([CatalogueItem(item_id=f"i{number}") for number in range(ITEMS)], ITEMS, np.zeros(ITEMS, np.float32))
RECENT = [tensor.name for tensor in SHOPPER_INPUTS].index("recent_items")


class Model:
    """Scores an item by the shopper's recent events and by nothing else."""

    async def fuse(self, *requests: FusionRequest, deadline: Deadline, dispensable: bool) -> list[FusionAnswer]:
        return [self.answer(request) for request in requests]

    def answer(self, request: FusionRequest) -> FusionAnswer:
        recent = set(request.shopper_inputs[RECENT].tolist())
        lifts = [SPEAKS_FOR.get(int(item), {}) for item in request.candidates]
        scores = [sum(lift for item, lift in one.items() if item in recent) for one in lifts]
        return FusionAnswer(
            np.full(TOP_ITEMS, PADDING, np.int32),
            np.zeros(TOP_ITEMS, np.float32),
            np.array(scores, np.float32),
            np.zeros(DIM, np.float32),
            np.full(1, 0.5, np.float32),
            np.zeros(RECENT_EVENTS, np.float32),
        )


def ask(shopper: Shopper, release: LoadedRelease, index: CatalogueIndex, rows: Rows, model: Any) -> list[Reason]:
    asked = FusionRequest(shopper, release, index, allowed=b"\0", candidates=candidates_of(rows, release))
    answer = model.answer(asked)
    shop: Any = SimpleNamespace(index=index, model=model)
    scores = answer.candidate_scores[: rows.size]
    return asyncio.run(reasons_of(shop, shopper, release, rows, scores, answer, Deadline()))


def test_an_item_is_explained_by_at_most_three_items_without_which_its_score_falls_furthest() -> None:
    index = CatalogueIndex()
    index.apply(CASE.items)
    seen = [
        ShopperEvent(f"e{place}", f"i{item}", EventType.VIEW, NOW_MS - 9_000 + place)
        for place, item in enumerate((0, 3, 1, 2, 0))
    ]
    bought = Purchases.of([Purchase("i6", 1, NOW_MS - 10**9, NOW_MS - 10**9)])
    features = ShopperFeatures(recent=Events.of(seen), purchases=bought, basket_count=1)
    shopper = merge([features], ShopperQuery(user_id="anna", session_id="", now_ms=NOW_MS))
    rows = index.rows([f"i{number}" for number in SPEAKS_FOR])
    assert ask(shopper, loaded(CASE, index), index, rows, Model()) == [
        Reason(Strand.RECENT, ("i0", "i1", "i2")),
        Reason(Strand.REPEAT, ("i3",)),
        Reason(Strand.LONG_TERM, ()),
        Reason(Strand.LONG_TERM, ("i1",)),
    ]


DEGREES = (0, 60, 70, 10, 14, 18, 2, 5, 65, 80)
"""Of each item's vector, on a circle: from their mean, those below 40 are of one kind and those above of the other."""


def test_where_nothing_newer_speaks_for_an_item_the_nearest_of_its_kind_that_the_vector_has_read_do() -> None:
    angles = np.deg2rad(DEGREES)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    index = CatalogueIndex()
    index.apply(CASE.items)
    seen = [ShopperEvent(f"e{item}", f"i{item}", EventType.VIEW, NOW_MS - 9_000 + item) for item in range(7)]
    read = LongInterest(np.zeros(DIM, np.float32), encoded_through_ms=NOW_MS - 9_000 + 4)  # not i6, the nearest
    features = ShopperFeatures(recent=Events.of(seen), interest=read)
    shopper = merge([features], ShopperQuery(user_id="anna", session_id="", now_ms=NOW_MS))
    assert ask(shopper, loaded(CASE, index, vectors), index, index.rows(["i8", "i7", "i9"]), Model()) == [
        Reason(Strand.LONG_TERM, ("i1",)),  # its score falls without
        Reason(Strand.LONG_TERM, ("i0", "i3", "i4")),
        Reason(Strand.LONG_TERM, ("i2", "i1")),
    ]


class TwoStrands(Model):
    """Likes what lies along the first axis, with either strand alone and both together, so much by the one as said."""

    def __init__(self, weight: float) -> None:
        self._weight = weight

    def answer(self, request: FusionRequest) -> FusionAnswer:
        return replace(
            super().answer(request),
            interest=np.array([1.0, 0.0], np.float32),
            long_weight=np.full(1, self._weight, np.float32),
        )


@pytest.mark.parametrize(("weight", "strand"), [(0.6, Strand.LONG_TERM), (0.4, Strand.RECENT)])
def test_the_strand_that_weighs_more_carried_an_item_unless_the_shop_likes_it_more_than_the_shopper(
    weight: float, strand: Strand
) -> None:
    vectors, biases = np.zeros((ITEMS, DIM), np.float32), np.zeros(ITEMS, np.float32)
    vectors[:3, 0] = 1.0
    biases[2] = 2.0
    index = CatalogueIndex()
    index.apply(CASE.items)
    shopper = merge([], ShopperQuery(user_id="anna", session_id="", now_ms=NOW_MS))
    found = ask(
        shopper, loaded(CASE, index, vectors, biases), index, index.rows(["i0", "i1", "i2"]), TwoStrands(weight)
    )
    assert [reason.strand for reason in found] == [strand, strand, Strand.POPULAR]
