"""Items that nobody has seen and shoppers of whom nothing is known: content, exploration, segments, the first event."""

from __future__ import annotations

import random
from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy import select

from braid.v1 import catalog_pb2, event_pb2
from braid.v1 import recommendation_pb2 as rec
from features.answers.answers import EXPLORED
from features.database.engine import open_database
from features.database.models import Answer
from features.inputs.shopper import ShopperQuery
from server.queries import RecommendQuery
from server.select.exploration import Draw
from tests.conditions import eventually
from tests.processes import free_ports
from tests.server.client import Client, RunningGateway, gateway, ids, new_event
from tests.server.shop import NOW_MS, TASTES, item

VIEW = event_pb2.EVENT_TYPE_VIEW
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def explorer(released_shop: RunningGateway) -> Iterator[Client]:
    """A second gateway on the same shop, every page of which explores if it can."""
    settings = released_shop.settings.model_copy(update={"gateway_address": f"127.0.0.1:{free_ports()}"})
    with gateway(settings, exploration_rate="1") as exploring:
        yield exploring.client


def young_items(client: Client, category: str, count: int) -> list[str]:
    """New items in a category of their own, with the rest of their content like a thing of Music's."""
    known = item("Music", 4)
    found = [
        catalog_pb2.Item(
            item_id=f"{category.lower()}-{number:02}-{uuid4().hex}",
            title=known.title or "",
            category_path=[category, f"{category} small"],
            brand=f"{category} brand {number % 3}",
            price=10.0 + number,
            stock=number % 2,
            attributes=known.attributes,
        )
        for number in range(count)
    ]
    client.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=found))
    return [one.item_id for one in found]


@pytest.fixture(scope="module")
def fresh(client: Client, explorer: Client) -> Iterator[list[str]]:
    """Twelve items of the category Fresh, known to both gateways and with vectors in both; taken away afterwards."""
    item_ids = young_items(client, "Fresh", 12)
    for one in (client, explorer):
        eventually(lambda one=one: have_vectors(one), what="vectors of the new items")
    yield item_ids
    client.catalog.DeleteItems(catalog_pb2.DeleteItemsRequest(item_ids=item_ids))


def have_vectors(client: Client) -> bool:
    """Whether all twelve have come; until then those that are there have one score, the average item's or the last."""
    results = fresh_page(client, "user-1", page_size=100).results
    return len(results) == 12 and len({result.score for result in results}) > 1


def fresh_page(client: Client, user_id: str, **fields: object) -> rec.RecommendResponse:
    return client.recommend(user_id, filter=rec.Filter(keep_categories=["Fresh"]), **fields)


def shown(client: Client, user_id: str, **fields: object) -> list[str]:
    return ids(fresh_page(client, user_id, **fields).results)


def explored(answer: rec.RecommendResponse) -> list[int]:
    return [place for place, result in enumerate(answer.results) if result.explored]


def test_an_item_is_recommended_by_its_content_soon_after_it_was_upserted(client: Client) -> None:
    (new,) = young_items(client, "Music", 1)
    visit = [new_event(VIEW, f"music-{number:02}") for number in range(8)]

    def ahead_of_most_other_tastes() -> bool:
        page = ids(client.recommend("soon", recent_events=visit, page_size=100).results)
        others = [place for place, item_id in enumerate(page) if not item_id.startswith("music")]
        return new in page and sum(place < page.index(new) for place in others) < len(others) / 2

    try:
        eventually(ahead_of_most_other_tastes, within_s=5, what="the new item")
    finally:
        client.catalog.DeleteItems(catalog_pb2.DeleteItemsRequest(item_ids=[new]))


def test_exploration_gives_one_place_of_the_lower_half_to_a_young_item(
    client: Client, explorer: Client, fresh: list[str]
) -> None:
    with_places = set()
    for shopper in range(20):
        answer = explorer.recommend(f"user-{shopper}")
        plain = ids(client.recommend(f"user-{shopper}").results)
        (place,) = explored(answer)
        found = ids(answer.results)
        assert 5 <= place < 10 and len(set(found)) == 10
        assert found[place] not in plain[:9]
        assert found[:place] + found[place + 1 :] == plain[:9]  # the last item left
        assert not explored(client.recommend(f"user-{shopper}"))
        with_places.add(place)
    assert len(with_places) > 2


def test_a_page_that_is_asked_again_explores_the_same_item(explorer: Client, fresh: list[str]) -> None:
    first, second = (explorer.recommend("user-2", placement="again") for _ in range(2))
    assert first.attribution_token != second.attribution_token
    if Draw.of(query("user-2", first_ms := _now_ms(), "again")) == Draw.of(query("user-2", first_ms - 5_000, "again")):
        assert ids(first.results) == ids(second.results) and explored(first) == explored(second)


def test_an_explored_item_obeys_every_filter_and_cap(explorer: Client, fresh: list[str]) -> None:
    draw = random.Random(5)
    tried = 0
    for user_id in ("user-4", "nobody-at-all"):
        for number in range(30):
            out = draw.sample(fresh, 4)
            wanted = rec.Filter(
                keep_categories=["Fresh", draw.choice(TASTES)],
                in_stock_only=draw.random() < 0.5,
                exclude_item_ids=out,
                max_price=draw.choice([15, 40]),
            )
            answer = explorer.recommend(
                user_id, filter=wanted, page_size=6, max_per_brand=2, placement=f"p{number}", diversity=0.3
            )
            brands: dict[str, int] = {}
            for result in answer.results:
                known = explorer.catalog.GetItem(catalog_pb2.GetItemRequest(item_id=result.item_id)).item
                assert known.category_path[0] in wanted.keep_categories and known.price <= wanted.max_price
                assert result.item_id not in out and (known.stock > 0 or not wanted.in_stock_only)
                brands[known.brand] = brands.get(known.brand, 0) + 1
            assert max(brands.values()) <= 2
            tried += len(explored(answer))
            assert len(explored(answer)) <= 1
    assert tried > 20


def test_a_recorded_answer_names_what_was_explored(
    explorer: Client, released_shop: RunningGateway, fresh: list[str]
) -> None:
    answer = explorer.recommend("user-9")
    (place,) = explored(answer)
    engine = open_database(released_shop.settings.log_url)
    statement = select(Answer.item_ids, Answer.request).where(Answer.attribution_token == answer.attribution_token)

    def recorded() -> tuple[list[str], dict[str, object]] | None:
        with engine.connect() as connection:
            row = connection.execute(statement).one_or_none()
        return (row.item_ids, row.request) if row else None

    item_ids, request = eventually(recorded, within_s=10, what="the recorded answer")
    engine.dispose()
    assert item_ids == ids(answer.results)
    assert request[EXPLORED] == [item_ids[place]]


def _now_ms() -> int:
    return new_event(VIEW, "any").event_time.ToMilliseconds()


def query(user_id: str, now_ms: int, placement: str = "") -> RecommendQuery:
    shopper = ShopperQuery(user_id=user_id, session_id="", now_ms=now_ms)
    return RecommendQuery(shopper=shopper, placement=placement)


def test_the_share_of_pages_that_explore_is_the_rate() -> None:
    draws = [Draw.of(query(f"shopper-{number}", NOW_MS)) for number in range(10_000)]
    assert 150 < sum(draw.whether < 0.02 for draw in draws) < 250
    assert sum(draw.whether < 0 for draw in draws) == 0
    assert {int(draw.where * 10) for draw in draws} == set(range(10)) == {int(draw.what * 10) for draw in draws}


def test_a_draw_stays_for_the_hour_and_differs_by_placement() -> None:
    begin_ms = NOW_MS // HOUR_MS * HOUR_MS
    first = Draw.of(query("anna", begin_ms))
    assert first == Draw.of(query("anna", begin_ms + HOUR_MS - 1))
    assert first != Draw.of(query("anna", begin_ms + HOUR_MS))
    assert first != Draw.of(query("anna", begin_ms, "home"))


def test_one_event_is_enough_to_personalise(client: Client) -> None:
    own = sum(
        found.startswith(of.lower())
        for of in TASTES
        for number in (3, 5, 8)
        for found in ids(
            client.recommend(uuid4().hex, recent_events=[new_event(VIEW, f"{of.lower()}-{number:02}")]).results
        )
    )
    assert own > 0.6 * 90  # of all pages' places; a third without the event


@pytest.mark.parametrize("user_id", ["user-4", "nobody-at-all"])
@pytest.mark.parametrize("diversity", [0.0, 0.5])
def test_caps_hold_in_every_tier_and_pages_that_end_short_say_why(
    client: Client, user_id: str, diversity: float
) -> None:
    of_tastes = rec.Filter(keep_categories=list(TASTES))
    full = client.recommend(
        user_id, max_per_category=4, category_level=1, page_size=12, diversity=diversity, filter=of_tastes
    )
    assert [len([i for i in ids(full.results) if i.startswith(of.lower())]) for of in TASTES] == [4, 4, 4]
    by_leaf = client.recommend(
        user_id,
        max_per_category=2,
        max_per_brand=1,
        page_size=100,
        diversity=diversity,
        filter=of_tastes,
    )
    found = [item(i.split("-")[0].title(), int(i.split("-")[1])) for i in ids(by_leaf.results)]
    leaves = [tuple(one.category_path) for one in found]
    brands = [one.brand for one in found]
    assert max(map(leaves.count, leaves)) <= 2 and len(set(brands)) == len(brands)
    counts = {count.field: count.removed_count for count in by_leaf.filter_counts}
    assert {"max_per_category", "max_per_brand"} & set(counts)
    assert len(found) == 12  # each of the four brands of a taste is of one leaf, which takes two


def test_without_diversity_caps_keep_the_order_of_the_model(client: Client) -> None:
    of_tastes = rec.Filter(keep_categories=list(TASTES))
    everything = ids(client.recommend("user-5", page_size=100, filter=of_tastes).results)
    capped = ids(
        client.recommend("user-5", page_size=9, max_per_category=3, category_level=1, filter=of_tastes).results
    )
    expected: list[str] = []
    for found in everything:
        kind = found.split("-")[0]
        if len(expected) < 9 and sum(other.startswith(kind) for other in expected) < 3:
            expected.append(found)
    assert capped == expected
