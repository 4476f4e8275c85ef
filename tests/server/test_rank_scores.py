"""Each item that is to be scored has its own score: by the model, by its content, or as the average item."""

from __future__ import annotations

import numpy as np
import pytest

from features.schema import PADDING, RECENT_EVENTS, TOP_ITEMS
from features.shop.catalogue import CatalogueItem
from server.catalogue.catalogue_index import CatalogueIndex
from server.hydrate.fusion_request import CANDIDATES, candidates_of
from server.infer.triton import FusionAnswer
from server.select.selection import scores_of
from tests.server.test_best_allowed import DIM, Case, loaded

KNOWN, NEW = 1_000, 20
CASE = Case(
    [CatalogueItem(item_id=f"i{number}") for number in range(KNOWN + NEW)],
    KNOWN,
    np.linspace(1, 5, KNOWN + NEW).astype(np.float32),
)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 128, 129, KNOWN + NEW])
def test_items_in_any_order_and_number_have_their_own_scores(count: int) -> None:
    index = CatalogueIndex()
    index.apply(CASE.items)
    release = loaded(CASE, index)
    numbers = np.random.default_rng(count).permutation(KNOWN + NEW)[:count].tolist()
    for first in (0, KNOWN, KNOWN + NEW - 1):  # the first that the release knows, the first and the last new one
        item_ids = [f"i{number}" for number in (first, *numbers)][:count]
        rows = index.rows([*item_ids, "nobody knows"])
        asked = candidates_of(rows, release)
        assert asked.size in CANDIDATES and (asked[rows.size :] == PADDING).all()
        answer = FusionAnswer(
            np.full(TOP_ITEMS, PADDING, np.int32),
            np.zeros(TOP_ITEMS, np.float32),
            np.where(asked >= 0, CASE.scores[np.maximum(asked, 0)], np.float32(np.nan)),
            np.ones(DIM, np.float32),
            np.zeros(1, np.float32),
            np.zeros(RECENT_EVENTS, np.float32),
        )
        expected = [CASE.scores[int(item_id[1:])] for item_id in item_ids]
        assert scores_of(answer, release, rows).tolist() == [*expected, 0.0]
