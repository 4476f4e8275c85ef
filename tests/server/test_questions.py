"""Rank, SimilarItems and GetInterests on a real release."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import grpc
import pytest

from braid.v1 import catalog_pb2, event_pb2
from braid.v1 import recommendation_pb2 as rec
from tests.server.client import Client, ids, new_event, refusal
from tests.server.shop import TASTES, items

VIEW = event_pb2.EVENT_TYPE_VIEW


def views(of: str) -> list[event_pb2.Event]:
    return [new_event(VIEW, f"{of.lower()}-{number:02}") for number in range(8)]


def rank(client: Client, user_id: str, item_ids: list[str], **fields: object) -> rec.RankResponse:
    request = rec.RankRequest(user_id=user_id, item_ids=item_ids, **fields)  # type: ignore[arg-type]
    return client.recommendations.Rank(request, timeout=10)


def test_rank_scores_as_recommend_does_in_the_order_asked(client: Client) -> None:
    recommended = client.recommend("user-5", page_size=50)
    asked = ids(recommended.results)[::-1]
    answer = rank(client, "user-5", asked)
    assert ids(answer.results) == asked
    assert answer.tier == rec.TIER_FULL and answer.release == 1 and answer.attribution_token
    expected = [result.score for result in recommended.results][::-1]
    assert [result.score for result in answer.results] == pytest.approx(expected, abs=1e-3)


def test_an_item_that_nobody_knows_is_the_average_one(client: Client) -> None:
    everything = [item.item_id for item in items()]
    answer = rank(client, "user-5", [*everything, "nobody-knows", "music-01", "music-01"])
    assert [result.unknown for result in answer.results] == [False] * 60 + [True, False, False]
    assert answer.results[61].score == answer.results[62].score
    scores = [result.score for result in answer.results[:60]]
    assert min(scores) < answer.results[60].score < max(scores)


def test_a_deleted_item_is_unknown_to_rank_unless_the_release_knows_it_or_its_content_comes_along(
    client: Client,
) -> None:
    learned = client.catalog.GetItem(catalog_pb2.GetItemRequest(item_id="music-02")).item
    sent = [catalog_pb2.Item(item_id=uuid4().hex, category_path=learned.category_path) for _ in range(2)]
    client.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=sent[:1]))
    before = rank(client, "user-5", ["music-02", "nobody-knows"])
    client.catalog.DeleteItems(catalog_pb2.DeleteItemsRequest(item_ids=["music-02", sent[0].item_id]))
    try:
        after = rank(client, "user-5", ["music-02", sent[0].item_id])
        by_content = rank(client, "user-5", [], items=sent)
    finally:
        client.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=[learned]))
    assert [result.unknown for result in after.results] == [False, True]
    expected = [result.score for result in before.results]
    assert [result.score for result in after.results] == pytest.approx(expected, abs=1e-3)
    deleted, never_there = by_content.results
    assert not deleted.unknown and not never_there.unknown
    assert deleted.score == pytest.approx(never_there.score, abs=1e-3) != pytest.approx(expected[1], abs=1e-3)


def test_rank_for_a_stranger_is_by_popularity(client: Client) -> None:
    answer = rank(client, uuid4().hex, ["music-01", "nobody-knows"])
    assert answer.tier == rec.TIER_POPULAR and answer.release == 0
    assert all(0 <= result.score <= 1 for result in answer.results)


def similar(client: Client, item_id: str, **fields: object) -> rec.SimilarItemsResponse:
    request = rec.SimilarItemsRequest(item_id=item_id, **fields)  # type: ignore[arg-type]
    return client.recommendations.SimilarItems(request, timeout=10)


def test_similar_items_are_of_a_kind(client: Client) -> None:
    own = 0
    for of in TASTES:
        answer = similar(client, f"{of.lower()}-05")
        assert len(answer.results) == 10 and answer.release == 1
        assert f"{of.lower()}-05" not in ids(answer.results)
        closeness = [result.similarity for result in answer.results]
        assert closeness == sorted(closeness, reverse=True) and -1 <= closeness[-1] <= closeness[0] <= 1
        own += sum(item_id.startswith(of.lower()) for item_id in ids(answer.results))
    assert own >= 20


def test_one_variant_of_a_group_is_shown(client: Client) -> None:
    answer = similar(client, "music-05", page_size=100, filter=rec.Filter(keep_categories=["Music"]))
    assert len({"music-01", "music-02"} & set(ids(answer.results))) == 1
    variant = similar(client, "music-01", page_size=100)
    assert not {"music-01", "music-02"} & set(ids(variant.results))


def test_similar_items_obey_the_filter(client: Client) -> None:
    answer = similar(client, "music-05", filter=rec.Filter(keep_categories=["Garden/Garden small"]), page_size=100)
    assert set(ids(answer.results)) == {f"garden-{number:02}" for number in range(0, 20, 2)}


def test_an_unknown_item_has_no_similar_ones(client: Client) -> None:
    code, _ = refusal(lambda: similar(client, "nobody-knows"))
    assert code == grpc.StatusCode.NOT_FOUND


def interests(client: Client, user_id: str, *events: event_pb2.Event) -> rec.GetInterestsResponse:
    request = rec.GetInterestsRequest(user_id=user_id, recent_events=events)
    return client.recommendations.GetInterests(request, timeout=10)


def share(found: Sequence[rec.GetInterestsResponse.Interest], of: str) -> float:
    return sum(interest.strength for interest in found if interest.category_path[0] == of)


def test_current_interest_follows_the_visit_and_long_term_interest_stays(client: Client) -> None:
    before = interests(client, "user-8")
    for of in TASTES:
        answer = interests(client, "user-8", *views(of))
        assert answer.tier == rec.TIER_FULL and answer.release == 1
        assert answer.current[0].category_path[0] == of
        assert share(answer.current, of) > 0.5
        assert share(answer.long_term, of) == pytest.approx(share(before.long_term, of), abs=0.05)
        for found in (answer.long_term, answer.current):
            strengths = [interest.strength for interest in found]
            assert sum(strengths) == pytest.approx(1) and strengths == sorted(strengths, reverse=True)
            assert all(1 <= len(interest.category_path) <= 2 for interest in found)
        assert 0 <= answer.long_term_weight <= 1


def test_nothing_is_known_of_a_stranger(client: Client) -> None:
    answer = interests(client, uuid4().hex)
    assert not answer.long_term and not answer.current
    assert not answer.HasField("long_term_weight") and not answer.HasField("last_event_time")


def test_a_stranger_with_a_visit_has_current_interest_alone(client: Client) -> None:
    for of in TASTES:
        answer = interests(client, uuid4().hex, *views(of))
        assert answer.tier == rec.TIER_RECENT
        assert not answer.long_term and answer.current[0].category_path[0] == of
