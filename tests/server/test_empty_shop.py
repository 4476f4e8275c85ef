"""A shop with nothing in it answers, and fills up call by call."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from braid.v1 import catalog_pb2 as catalog
from braid.v1 import event_pb2
from braid.v1 import recommendation_pb2 as rec
from braid.v1 import user_pb2 as user
from features.settings import Settings
from server.gateway import SERVICES
from tests.server.client import SERVING, Client, gateway, ids, new_event, refusal


@pytest.fixture(scope="module")
def bare(new_settings: object) -> Iterator[Client]:
    """A gateway on a folder in which nothing was ever made: no tables, no feature store, no Triton."""
    settings: Settings = new_settings()  # type: ignore[operator]
    with gateway(settings) as running_gateway:
        yield running_gateway.client


def test_it_serves_and_says_so_for_every_service(bare: Client) -> None:
    assert {bare.health(name) for name in ("", *SERVICES)} == {SERVING}
    code, _ = refusal(lambda: bare.health("braid.v1.NoService"))
    assert code == grpc.StatusCode.NOT_FOUND


def test_reflection_tells_the_services(bare: Client) -> None:
    names = set(ProtoReflectionDescriptorDatabase(bare.channel).get_services())
    assert {*SERVICES, "grpc.health.v1.Health"} <= names


def test_an_empty_catalogue_gives_empty_answers(bare: Client) -> None:
    answer = bare.recommend("anybody", filter=rec.Filter(keep_categories=["None"]), diversity=0.5, explain=True)
    assert not answer.results and answer.tier == rec.TIER_POPULAR and answer.release == 0
    view = new_event(event_pb2.EVENT_TYPE_VIEW, "unknown")
    assert not bare.recommend("anybody", recent_events=[view]).results
    interests = bare.recommendations.GetInterests(rec.GetInterestsRequest(user_id="anybody", recent_events=[view]))
    assert not interests.long_term and not interests.current
    ranked = bare.recommendations.Rank(rec.RankRequest(user_id="anybody", item_ids=["unknown"]))
    assert ranked.results[0].unknown
    code, _ = refusal(lambda: bare.recommendations.SimilarItems(rec.SimilarItemsRequest(item_id="unknown")))
    assert code == grpc.StatusCode.NOT_FOUND
    assert not bare.catalog.ListItems(catalog.ListItemsRequest()).items
    assert bare.catalog.DeleteItems(catalog.DeleteItemsRequest(item_ids=["unknown"])).deleted_count == 0


def test_items_are_in_the_next_answer_and_similar_by_content_without_a_release(bare: Client) -> None:
    prefix = uuid4().hex
    rows = [
        catalog.Item(item_id=f"{prefix}-{number}", category_path=["Tools", "Saws" if number < 3 else "Drills"])
        for number in range(6)
    ]
    assert bare.catalog.UpsertItems(catalog.UpsertItemsRequest(items=rows)).upserted_count == 6
    assert set(ids(bare.recommend("anybody").results)) == {item.item_id for item in rows}
    request = rec.SimilarItemsRequest(item_id=f"{prefix}-0", page_size=2)
    similar = bare.recommendations.SimilarItems(request)
    assert set(ids(similar.results)) == {f"{prefix}-1", f"{prefix}-2"}
    assert similar.release == 0
    bare.catalog.UpsertItems(catalog.UpsertItemsRequest(items=[catalog.Item(item_id=f"{prefix}-lone")]))
    alone = rec.SimilarItemsRequest(item_id=f"{prefix}-lone", page_size=2)
    assert not bare.recommendations.SimilarItems(alone).results, "it has nothing in common with any"
    bare.catalog.DeleteItems(catalog.DeleteItemsRequest(item_ids=[f"{prefix}-lone"]))
    ids_ = [item.item_id for item in rows]
    assert bare.catalog.DeleteItems(catalog.DeleteItemsRequest(item_ids=[*ids_, "unknown"])).deleted_count == 6
    assert not bare.recommend("anybody").results
    code, _ = refusal(lambda: bare.recommendations.SimilarItems(request))
    assert code == grpc.StatusCode.NOT_FOUND


def test_the_catalogue_is_paged_in_the_order_of_ids(bare: Client) -> None:
    rows = [catalog.Item(item_id=f"page {number:03} é") for number in range(25)]
    bare.catalog.UpsertItems(catalog.UpsertItemsRequest(items=rows))
    found: list[str] = []
    token = ""
    while True:
        page = bare.catalog.ListItems(catalog.ListItemsRequest(page_size=10, page_token=token))
        assert len(page.items) <= 10
        found += ids(page.items)
        token = page.next_page_token
        if not token:
            break
    assert found == [item.item_id for item in rows]
    bare.catalog.DeleteItems(catalog.DeleteItemsRequest(item_ids=found))


def test_unknown_items_and_users_are_not_found_by_name(bare: Client) -> None:
    for call in (
        lambda: bare.catalog.GetItem(catalog.GetItemRequest(item_id="gone")),
        lambda: bare.users.GetUser(user.GetUserRequest(user_id="gone")),
    ):
        with pytest.raises(grpc.RpcError, match="gone"):
            call()
        assert refusal(call)[0] == grpc.StatusCode.NOT_FOUND


def test_a_call_whose_time_is_over_is_not_worked_on(bare: Client) -> None:
    event = new_event(event_pb2.EVENT_TYPE_VIEW, "i", user_id="u")
    request = event_pb2.WriteEventsRequest(events=[event])
    code, _ = refusal(lambda: bare.events.WriteEvents(request, timeout=0.0001))
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_caller_in_a_hurry_is_answered_in_time(bare: Client) -> None:
    request = rec.RecommendRequest(user_id="anybody")
    assert bare.recommendations.Recommend(request, timeout=1).tier == rec.TIER_POPULAR


def test_a_price_for_a_deleted_item_does_not_bring_it_back(bare: Client) -> None:
    prefix = uuid4().hex
    gone, kept = (catalog.Item(item_id=f"{prefix}-{name}", title=name, price=1) for name in ("gone", "kept"))
    bare.catalog.UpsertItems(catalog.UpsertItemsRequest(items=[gone, kept]))
    bare.catalog.DeleteItems(catalog.DeleteItemsRequest(item_ids=[gone.item_id]))
    prices = [catalog.Item(item_id=item.item_id, price=2) for item in (gone, kept)]
    request = catalog.UpsertItemsRequest(items=prices, update_mask=FieldMask(paths=["price"]))
    assert bare.catalog.UpsertItems(request).upserted_count == 1
    code, _ = refusal(lambda: bare.catalog.GetItem(catalog.GetItemRequest(item_id=gone.item_id)))
    assert code == grpc.StatusCode.NOT_FOUND
    ranked = bare.recommendations.Rank(rec.RankRequest(user_id="anybody", item_ids=[gone.item_id, kept.item_id]))
    assert [result.unknown for result in ranked.results] == [True, False]
    found = bare.catalog.GetItem(catalog.GetItemRequest(item_id=kept.item_id)).item
    assert (found.title, found.price) == ("kept", 2)
    bare.catalog.DeleteItems(catalog.DeleteItemsRequest(item_ids=[kept.item_id]))
