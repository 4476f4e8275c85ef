"""The item that is tried out is scored as the others of its page are, boosts and all."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from features.inputs.shopper import Context, ShopperEvent, ShopperQuery, merge
from features.offline.item_statistics import segments
from features.schema import EventType
from features.shop.catalogue import CatalogueItem
from features.shop.placement_rules import ItemSelector, Rule
from server.catalogue.catalogue_index import CatalogueIndex
from server.deadline import Deadline
from server.queries import Recommendation, RecommendQuery
from server.recommend import _Page
from server.select.exploration import SEEN_EVENTS
from server.select.popularity import Popularity, Segment
from server.shop import Course
from tests.server.test_best_allowed import NOW_MS, Case, loaded, shop_of

ITEMS = 60
QUERY = RecommendQuery(
    shopper=ShopperQuery(
        user_id="anna",
        session_id="",
        now_ms=NOW_MS,
        context=Context(country="GB"),
        recent_events=(ShopperEvent("e", "i0", EventType.VIEW, NOW_MS - 5_000),),
    )
)
CASE = Case(
    [CatalogueItem(item_id=f"i{number}", category_path=["AB"[number % 2]]) for number in range(ITEMS)],
    ITEMS - 5,
    np.linspace(5, 0, ITEMS).astype(np.float32),
)
WEIGHTS = [float(ITEMS - number) for number in range(ITEMS)]
(COUNTRY, *_) = segments("GB", "", NOW_MS)


def page_of(amount: float, *, by_model: bool) -> Recommendation:
    """A page that explores, with every item of one category boosted."""
    index = CatalogueIndex()
    index.apply(CASE.items)
    boost = Rule(rule_id="b", action="boost", items=ItemSelector(categories=("A",)), amount=amount)
    popularity = Popularity.of(
        Segment.of(range(ITEMS), WEIGHTS),
        {COUNTRY: Segment.of(range(0, ITEMS, 3), [500.0] * 20)},
        np.where(np.arange(ITEMS) < CASE.known, SEEN_EVENTS, 0),
        (0, 0, 0),
    )
    others = {"exploration_rate": 1.0, "popular": SimpleNamespace(current=popularity)}
    shop = shop_of(CASE, index, [boost] if amount else [], **others)
    page = _Page(shop, QUERY, merge([], QUERY.shopper), [], Course(None))
    return asyncio.run(page.by_model(loaded(CASE, index), Deadline())) if by_model else page.popular(None)


def share(number: int) -> float:
    """Of the country, shrunk to the whole shop's."""
    in_country = 500.0 if number % 3 == 0 else 0.0
    return (in_country + 1_000 * WEIGHTS[number] / sum(WEIGHTS)) / (20 * 500.0 + 1_000)


@pytest.mark.parametrize("by_model", [True, False])
@pytest.mark.parametrize("amount", [0.0, 3.0, -3.0])
def test_the_explored_item_has_the_score_that_its_rank_would_give_it(by_model: bool, amount: float) -> None:
    answer = page_of(amount, by_model=by_model)
    assert answer.explored is not None and len(answer.scores) == 10
    number = int(answer.item_ids[answer.explored][1:])
    own = float(CASE.scores[number]) if by_model else share(number)
    assert answer.scores[answer.explored] == pytest.approx(own + (amount if number % 2 == 0 else 0.0), abs=1e-5)
    assert answer.scores[answer.explored] < max(answer.scores)
