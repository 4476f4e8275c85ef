"""What speaks for an item is what its score falls without, and an item that was bought before comes back as such."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np

from features.inputs.fusion_inputs import SHOPPER_INPUTS
from features.inputs.shopper import Events, Purchase, Purchases, ShopperEvent, ShopperFeatures, ShopperQuery, merge
from features.schema import PADDING, RECENT_EVENTS, TOP_ITEMS, EventType
from features.shop.catalogue import CatalogueItem
from server.catalogue.catalogue_index import CatalogueIndex
from server.deadline import Deadline
from server.hydrate.fusion_request import FusionRequest, candidates_of
from server.infer.triton import FusionAnswer
from server.queries import Reason, Strand
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


def test_an_item_is_explained_by_at_most_three_items_without_which_its_score_falls_furthest() -> None:
    case = Case([CatalogueItem(item_id=f"i{number}") for number in range(ITEMS)], ITEMS, np.zeros(ITEMS, np.float32))
    index = CatalogueIndex()
    index.apply(case.items)
    release, model = loaded(case, index), Model()
    seen = [
        ShopperEvent(f"e{place}", f"i{item}", EventType.VIEW, NOW_MS - 9_000 + place)
        for place, item in enumerate((0, 3, 1, 2, 0))
    ]
    bought = Purchases.of([Purchase("i6", 1, NOW_MS - 10**9, NOW_MS - 10**9)])
    features = ShopperFeatures(recent=Events.of(seen), purchases=bought, basket_count=1)
    shopper = merge([features], ShopperQuery(user_id="anna", session_id="", now_ms=NOW_MS))
    rows = index.rows([f"i{number}" for number in SPEAKS_FOR])
    asked = FusionRequest(shopper, release, index, allowed=b"\0", candidates=candidates_of(rows, release))
    answer = model.answer(asked)
    shop: Any = SimpleNamespace(index=index, model=model)
    scores = answer.candidate_scores[: rows.size]
    found = asyncio.run(reasons_of(shop, shopper, release, rows, scores, answer, Deadline()))
    assert found == [
        Reason(Strand.RECENT, ("i0", "i1", "i2")),
        Reason(Strand.REPEAT, ("i3",)),
        Reason(Strand.LONG_TERM, ()),
        Reason(Strand.LONG_TERM, ("i1",)),
    ]
