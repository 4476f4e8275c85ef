"""Filters of every selectivity through the gateway and the real Triton, against Rank's score of every item."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from benchmarks.random_release import HIGHEST_PRICE, fill_and_publish, made_up_items
from braid.v1 import catalog_pb2, event_pb2, placement_pb2
from braid.v1 import recommendation_pb2 as rec
from features import store
from features.shop.catalogue import CatalogueItem
from tests.conditions import eventually
from tests.conftest import NewSettings, StartTriton
from tests.server.client import Client, gateway, ids, new_event
from tests.server.shop import NOW_MS

ITEMS, NEW_ITEMS = 4_000, 300
FILTERS: dict[str, dict[str, Any]] = {
    "everything": {},
    "90%": {"drop_categories": ["top 0"]},
    "50%": {"max_price": HIGHEST_PRICE / 2},
    "10%": {"keep_categories": ["top 1"]},
    "1%": {"keep_categories": ["top 2/sub 3"]},
    "0.05%": {"keep_categories": ["top 2/sub 3"], "max_price": HIGHEST_PRICE / 20},
    "the new ones": {"keep_brands": ["new"]},
    "nothing": {"keep_categories": ["nowhere"]},
}
CATALOGUE = {item.item_id: item for item in made_up_items(ITEMS)}
NEW = {
    f"new-{number}": CatalogueItem(
        item_id=f"new-{number}", category_path=[f"top {number % 10}", "sub 3"], brand="new", price=float(number)
    )
    for number in range(NEW_ITEMS)
}
TOLERANCE = 1e-3
"""Between two scores of one item, asked for a moment apart and in batches of another shape."""


@pytest.fixture(scope="module")
def random_shop(new_settings: NewSettings, start_triton: StartTriton) -> Iterator[Client]:
    """A client of a shop with a release of random weights, to which `NEW` were added."""
    settings = new_settings()
    store.apply(settings)
    fill_and_publish(settings, ITEMS)
    start_triton(settings)
    with gateway(settings) as on_it:
        new = [
            catalog_pb2.Item(
                item_id=item.item_id, category_path=item.category_path, brand=item.brand or "", price=item.price
            )
            for item in NEW.values()
        ]
        on_it.client.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=new))

        def have_vectors() -> bool:
            scores = ranked(on_it.client, [*NEW, "nobody-knows"])
            return all(scores[item_id] != scores["nobody-knows"] for item_id in NEW)

        eventually(have_vectors, within_s=30, what="vectors of the new items")
        yield on_it.client


def visit() -> list[event_pb2.Event]:
    """Some days ago, so that a moment more or less changes no score."""
    draw = random.Random(3)
    seconds = NOW_MS // 1000 - 10 * 86_400
    return [
        new_event(
            event_pb2.EVENT_TYPE_VIEW,
            f"item-{draw.randrange(ITEMS)}",
            event_id=f"visit-{number}",
            event_time=Timestamp(seconds=seconds + number),
        )
        for number in range(20)
    ]


def ranked(client: Client, item_ids: list[str]) -> dict[str, float]:
    """Rank's score of each."""
    scores: dict[str, float] = {}
    for start in range(0, len(item_ids), 1_000):
        request = rec.RankRequest(user_id="anna", item_ids=item_ids[start : start + 1_000], recent_events=visit())
        scores |= {result.item_id: result.score for result in client.recommendations.Rank(request, timeout=10).results}
    return scores


def allowed(wanted: dict[str, Any]) -> set[str]:
    """What a filter of `FILTERS` keeps."""

    def kept(item: CatalogueItem) -> bool:
        paths = {item.category_path[0], "/".join(item.category_path)}
        return (
            bool(paths & set(wanted.get("keep_categories", paths)))
            and not paths & set(wanted.get("drop_categories", ()))
            and item.brand in wanted.get("keep_brands", (item.brand,))
            and (item.price or 0.0) <= wanted.get("max_price", HIGHEST_PRICE)
        )

    return {item_id for item_id, item in (CATALOGUE | NEW).items() if kept(item)}


def assert_best(answer: rec.RecommendResponse, kept: set[str], scores: dict[str, float], page_size: int) -> None:
    """The page is the best of what is kept, in order, by scores that are known to `TOLERANCE`."""
    found = ids(answer.results)
    assert answer.tier == rec.TIER_RECENT or not kept
    assert set(found) <= kept and len(found) == len(set(found)) == min(page_size, len(kept))
    expected = sorted((scores[item_id] for item_id in kept), reverse=True)[: len(found)]
    assert [scores[item_id] for item_id in found] == pytest.approx(expected, abs=TOLERANCE)
    assert [result.score for result in answer.results] == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("page_size", [10, 100])
def test_the_best_of_what_a_filter_keeps_come_back(random_shop: Client, name: str, page_size: int) -> None:
    scores = ranked(random_shop, [*CATALOGUE, *NEW])
    kept = allowed(FILTERS[name])
    wanted = rec.Filter(**FILTERS[name])
    request = {"filter": wanted, "recent_events": visit(), "page_size": page_size}
    for _ in range(4):  # what came back is left out the next time
        answer = random_shop.recommend("anna", **request)
        assert_best(answer, kept, scores, page_size)
        counts = {count.field: count.removed_count for count in answer.filter_counts}
        short = len(answer.results) < page_size
        assert sum(counts.values()) == (ITEMS + NEW_ITEMS - len(kept) if short else 0)
        kept = kept - set(ids(answer.results))
        wanted.exclude_item_ids.extend(ids(answer.results))


def test_boosts_are_exact_beyond_the_models_best(random_shop: Client) -> None:
    scores = ranked(random_shop, [*CATALOGUE, *NEW])
    boosts = {
        "top 1": ("category", 0.8),
        "brand 7": ("brand", -1.1),
        "top 4": ("category", -0.3),
        "new": ("brand", 0.5),
    }
    rules = []
    for number, (value, (kind, amount)) in enumerate(boosts.items()):
        fields = {"categories": [value]} if kind == "category" else {"brands": [value]}
        action = placement_pb2.Rule.Boost(items=placement_pb2.ItemSelector(**fields), amount=amount)
        rules.append(placement_pb2.Rule(rule_id=f"boost-{number}", placement="boosted", boost=action))
        for item_id, item in (CATALOGUE | NEW).items():
            if value in (item.category_path[0], item.brand):
                scores[item_id] += amount
    random_shop.placements.UpsertRules(placement_pb2.UpsertRulesRequest(rules=rules))
    for name in ("everything", "50%", "10%", "0.05%"):
        request = {"filter": rec.Filter(**FILTERS[name]), "recent_events": visit()}
        answer = random_shop.recommend("anna", placement="boosted", page_size=100, **request)
        assert_best(answer, allowed(FILTERS[name]), scores, 100)


@pytest.mark.parametrize(
    "wanted",
    [
        {"keep_categories": ["Nowhere"], "drop_categories": ["Nowhere/at all"]},
        {"keep_brands": ["nobody's"], "exclude_item_ids": ["unknown", "unknown"]},
    ],
)
def test_what_the_catalogue_lacks_is_an_empty_answer_with_counts(random_shop: Client, wanted: dict[str, Any]) -> None:
    answer = random_shop.recommend("anna", recent_events=visit(), filter=rec.Filter(**wanted))
    assert not answer.results
    assert sum(count.removed_count for count in answer.filter_counts) == ITEMS + NEW_ITEMS


def test_nothing_is_asked_of_a_request_that_is_only_checked(random_shop: Client) -> None:
    bad = rec.Filter(keep_brands=["a"], drop_brands=["a"])
    with pytest.raises(grpc.RpcError, match="drop_brands"):
        random_shop.recommend("anna", filter=bad, validate_only=True)
    good = random_shop.recommend("anna", filter=rec.Filter(exclude_shown_today=True), validate_only=True)
    assert good == rec.RecommendResponse()
