"""The item that is tried out: which it may be, where it comes, and that it is scored as the others of its page are."""

from __future__ import annotations

import asyncio
from dataclasses import replace
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
from server.queries import NO_CAPS, Caps, Recommendation, RecommendQuery
from server.recommend import _Page
from server.select.exploration import SEEN_EVENTS, hardly_seen
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


def explored(
    user_id: str, *, rate: float = 1.0, page_size: int = 10, caps: Caps = NO_CAPS, young: int = 40
) -> tuple[int, int] | None:
    """Place and number of what one shopper's page tries out, where the last of the items are young."""
    case = Case(CASE.items, ITEMS - young, CASE.scores)
    index = CatalogueIndex()
    index.apply(case.items)
    popularity = Popularity.of(Segment.of([], []), {}, np.full(ITEMS - young, SEEN_EVENTS), (0, 0, 0))
    shop = shop_of(case, index, [], exploration_rate=rate, popular=SimpleNamespace(current=popularity))
    query = replace(QUERY, shopper=replace(QUERY.shopper, user_id=user_id), page_size=page_size, caps=caps)
    page = _Page(shop, query, merge([], query.shopper), [], Course(None))
    answer = asyncio.run(page.by_model(loaded(case, index), Deadline()))
    return None if answer.explored is None else (answer.explored, int(answer.item_ids[answer.explored][1:]))


def test_shoppers_try_out_any_of_the_twenty_that_suit_them_best_in_any_place_of_the_lower_half() -> None:
    found = [explored(f"shopper {number}") for number in range(100)]
    assert {one[0] for one in found if one} == set(range(5, 10))
    numbers = {one[1] for one in found if one}
    assert numbers <= set(range(20, 40)) and len(numbers) > 10


def test_only_the_rates_share_of_pages_tries_out_something_and_none_of_one_item_or_that_ends_short() -> None:
    shoppers = [f"shopper {number}" for number in range(40)]
    assert 5 < sum(explored(shopper, rate=0.5) is not None for shopper in shoppers) < 35
    for fields in ({"rate": 0.0}, {"page_size": 1}, {"caps": Caps(max_per_category=2)}):
        assert not any(explored(shopper, **fields) for shopper in shoppers[:10]), fields
    assert explored("anna", page_size=2) is not None


def test_figures_of_items_that_came_while_the_model_answered_are_none_of_the_pages() -> None:
    events = np.array([SEEN_EVENTS, SEEN_EVENTS - 1, 0, 0])
    popularity = Popularity.of(Segment.of([], []), {}, events, (0, 0, 0))
    assert hardly_seen(popularity, None, np.array([True, True])).tolist() == [1]
    assert hardly_seen(popularity, None, np.array([True, True, False, True, True])).tolist() == [1, 3, 4]


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
