"""Recommend on a real release: tiers, filters, what counts at once, reasons, new items."""

from __future__ import annotations

import random
from uuid import uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from braid.v1 import catalog_pb2, event_pb2, user_pb2
from braid.v1 import recommendation_pb2 as rec
from features.shop.catalogue import CatalogueItem
from tests.conditions import eventually
from tests.server.client import Client, ids, new_event
from tests.server.shop import NOW_MS, TASTES, item, items, taste_of

VIEW, PURCHASE = event_pb2.EVENT_TYPE_VIEW, event_pb2.EVENT_TYPE_PURCHASE
CATALOGUE = {item.item_id: item for item in items()}
REASON = rec.RecommendResponse.Reason


def taste(item_id: str) -> str:
    return item_id.split("-")[0].title()


def views(of: str, count: int = 8) -> list[event_pb2.Event]:
    """A visit to one taste, just now."""
    return [new_event(VIEW, f"{of.lower()}-{number:02}") for number in range(count)]


def test_a_known_shopper_is_answered_by_the_full_model(client: Client) -> None:
    answer = client.recommend("user-4")
    assert answer.tier == rec.TIER_FULL
    assert answer.release == 1
    assert len(answer.results) == 10 == len(set(ids(answer.results)))
    assert 0 <= answer.long_term_weight <= 1
    scores = [result.score for result in answer.results]
    assert scores == sorted(scores, reverse=True)
    assert answer.long_term_encoded_through_time.ToMilliseconds() <= NOW_MS
    assert answer.last_event_time.ToMilliseconds() <= NOW_MS
    assert answer.attribution_token and not answer.filter_counts
    assert not any(result.HasField("reason") for result in answer.results)


def test_shoppers_get_what_they_like(client: Client) -> None:
    hits = [
        taste(item_id) == taste_of(shopper)
        for shopper in range(30)
        for item_id in ids(client.recommend(f"user-{shopper}", page_size=5).results)
    ]
    assert sum(hits) / len(hits) > 0.6


def test_events_sent_along_count_at_once(client: Client) -> None:
    for of in TASTES:
        answer = client.recommend(f"stranger-{of}", recent_events=views(of))
        assert answer.tier == rec.TIER_RECENT
        assert not answer.HasField("long_term_encoded_through_time")
        assert sum(taste(item_id) == of for item_id in ids(answer.results)) >= 6


def test_an_anonymous_session_and_the_item_of_the_page_are_enough(client: Client) -> None:
    answer = client.recommend(session_id=uuid4().hex, context=rec.Context(page_item_id="music-03"))
    assert answer.tier == rec.TIER_RECENT
    assert answer.HasField("last_event_time")


def test_a_stranger_gets_what_is_popular(client: Client) -> None:
    answer = client.recommend(uuid4().hex, explain=True)
    assert answer.tier == rec.TIER_POPULAR and answer.release == 0
    assert len(answer.results) == 10
    assert not answer.HasField("long_term_weight") and not answer.HasField("last_event_time")
    assert {result.reason.strand for result in answer.results} == {REASON.STRAND_POPULAR}


def test_a_stranger_on_a_category_page_gets_what_is_popular_there(client: Client) -> None:
    answer = client.recommend(uuid4().hex, context=rec.Context(page_category=["Music", "Music small"]), page_size=5)
    assert answer.tier == rec.TIER_SEGMENT
    assert {tuple(CATALOGUE[item_id].category_path) for item_id in ids(answer.results)} == {("Music", "Music small")}


def test_a_stranger_from_a_known_country_gets_what_is_popular_there(client: Client) -> None:
    answer = client.recommend(uuid4().hex, context=rec.Context(country="GB"))
    assert answer.tier == rec.TIER_SEGMENT
    assert client.recommend(uuid4().hex, context=rec.Context(country="XX")).tier == rec.TIER_POPULAR


def test_a_written_event_is_in_the_answers(client: Client) -> None:
    user_id = f"writer-{uuid4().hex}"
    written = [new_event(VIEW, f"music-{number:02}", user_id=user_id) for number in range(6)]
    assert client.write(*written) == [event_pb2.EventStatus.CODE_STORED] * 6
    answer = eventually(
        lambda: (found := client.recommend(user_id)).tier == rec.TIER_RECENT and found, within_s=10, what="the events"
    )
    assert answer.last_event_time.ToMilliseconds() == written[-1].event_time.ToMilliseconds()
    again = client.recommend(user_id, recent_events=written)
    assert ids(again.results) == ids(answer.results)  # the same events are counted once


def test_the_same_event_is_stored_once(client: Client) -> None:
    event = new_event(VIEW, "music-01", user_id=uuid4().hex)
    code = event_pb2.EventStatus
    assert client.write(event, event) == [code.CODE_STORED, code.CODE_DUPLICATE]
    assert client.write(event) == [code.CODE_DUPLICATE]


def random_filter(draw: random.Random) -> rec.Filter:
    """One of many filters over the small catalogue."""
    chosen = rec.Filter(in_stock_only=draw.random() < 0.3, allow_age_restricted=draw.random() < 0.5)
    if draw.random() < 0.5:
        chosen.keep_categories.append(draw.choice(["Music", "Kitchen/Kitchen small", "Garden/Garden large", "None"]))
    if draw.random() < 0.3:
        chosen.drop_categories.append(draw.choice(["Garden", "Music/Music large"]))
    if draw.random() < 0.3:
        chosen.keep_brands.extend(f"{of} brand {draw.randrange(1, 4)}" for of in TASTES)
    if draw.random() < 0.3:
        chosen.drop_brands.append("Music brand 0")
    if draw.random() < 0.3:
        chosen.min_price = draw.randrange(5, 20)
    if draw.random() < 0.3:
        chosen.max_price = chosen.min_price + draw.randrange(20)
    chosen.exclude_item_ids.extend(draw.sample(sorted(CATALOGUE), draw.randrange(10)))
    return chosen


def may_be_shown(known: CatalogueItem, wanted: rec.Filter) -> bool:
    path = known.category_path
    beginnings = {"/".join(path[: level + 1]) for level in range(len(path))}
    price = known.price or 0.0
    return (
        (not wanted.keep_categories or bool(beginnings & set(wanted.keep_categories)))
        and not beginnings & set(wanted.drop_categories)
        and (not wanted.keep_brands or known.brand in wanted.keep_brands)
        and known.brand not in wanted.drop_brands
        and (not wanted.HasField("min_price") or price >= wanted.min_price)
        and (not wanted.HasField("max_price") or price <= wanted.max_price)
        and not (wanted.in_stock_only and known.stock == 0)
        and known.item_id not in wanted.exclude_item_ids
        and (wanted.allow_age_restricted or not known.age_restricted)
    )


@pytest.mark.parametrize("user_id", ["user-7", "nobody-in-particular"])
def test_filters_are_exact_and_complete_in_every_tier(client: Client, user_id: str) -> None:
    draw = random.Random(1)
    for _ in range(40):
        wanted = random_filter(draw)
        answer = client.recommend(user_id, filter=wanted, page_size=100)
        allowed = {item_id for item_id, known in CATALOGUE.items() if may_be_shown(known, wanted)}
        shown = set(ids(answer.results))
        assert shown & set(CATALOGUE) == allowed, wanted
        taken = sum(count.removed_count for count in answer.filter_counts)
        assert taken + len(shown) >= len(CATALOGUE)


def test_what_a_filter_took_is_told_where_fewer_come_back(client: Client) -> None:
    answer = client.recommend("user-4", filter=rec.Filter(keep_categories=["Music/Music small"], max_price=9))
    assert sorted(ids(answer.results)) == ["music-00", "music-02", "music-04"]
    counts = {count.field: count.removed_count for count in answer.filter_counts}
    assert set(counts) == {"catalog", "keep_categories", "max_price"}
    assert counts["max_price"] == 7


def test_bought_items_are_left_out_but_for_those_bought_long_ago(client: Client) -> None:
    everything = client.recommend("user-6", page_size=100, filter=rec.Filter(allow_age_restricted=True))
    unbought = client.recommend(
        "user-6", page_size=100, filter=rec.Filter(allow_age_restricted=True, exclude_purchased=True)
    )
    bought = set(ids(everything.results)) - set(ids(unbought.results))
    assert 1 <= len(bought) <= 8
    counts = {count.field: count.removed_count for count in unbought.filter_counts}
    assert counts["exclude_purchased"] == len(bought)
    window = rec.Filter(allow_age_restricted=True, exclude_purchased=True)
    window.repurchase_window.FromSeconds(1)
    assert set(ids(client.recommend("user-6", page_size=100, filter=window).results)) == set(ids(everything.results))
    just_now = new_event(PURCHASE, "kitchen-05")
    with_it = client.recommend("user-6", page_size=100, filter=window, recent_events=[just_now])
    assert "kitchen-05" not in ids(with_it.results)


def test_a_change_of_stock_holds_from_the_next_answer_on(client: Client) -> None:
    in_stock = rec.Filter(in_stock_only=True, keep_categories=["Garden"])
    stock = catalog_pb2.UpsertItemsRequest(items=[catalog_pb2.Item(item_id="garden-03", stock=0)])
    stock.update_mask.paths.append("stock")
    for pieces in (0, 5):
        stock.items[0].stock = pieces
        client.catalog.UpsertItems(stock)
        found = ids(client.recommend("user-3", filter=in_stock, page_size=100).results)
        assert ("garden-03" in found) == (pieces > 0)
    kept = client.catalog.GetItem(catalog_pb2.GetItemRequest(item_id="garden-03")).item
    assert kept.title == CATALOGUE["garden-03"].title and kept.stock == 5


def test_a_new_item_is_recommended_by_its_content_and_a_deleted_one_never(client: Client) -> None:
    known = item("Music", 4)
    new = catalog_pb2.Item(
        item_id=f"new-{uuid4().hex}",
        title=known.title or "",
        category_path=known.category_path,
        brand=known.brand or "",
        price=known.price,
        attributes=known.attributes,
    )
    client.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=[new]))

    def place(of: str) -> int:
        answer = client.recommend(f"fan-of-{of}", recent_events=views(of), page_size=100)
        found = ids(answer.results)
        return found.index(new.item_id) if new.item_id in found else 100

    assert place("Music") < 100  # at once, be it last
    eventually(lambda: place("Music") < place("Garden"), what="a vector for the new item")
    similar = client.recommendations.SimilarItems(rec.SimilarItemsRequest(item_id=new.item_id, page_size=5))
    assert sum(taste(item_id) == "Music" for item_id in ids(similar.results)) >= 3
    ranked = client.recommendations.Rank(rec.RankRequest(user_id="user-3", item_ids=[new.item_id]))
    assert not ranked.results[0].unknown
    seen = client.recommend("fan", recent_events=[new_event(VIEW, new.item_id)], explain=True)
    assert seen.tier == rec.TIER_RECENT
    client.catalog.DeleteItems(catalog_pb2.DeleteItemsRequest(item_ids=[new.item_id]))
    assert place("Music") == 100


def test_an_unlaunched_item_is_not_recommended(client: Client) -> None:
    soon = catalog_pb2.Item(item_id=f"soon-{uuid4().hex}", category_path=["Soon"])
    soon.launch_time.CopyFrom(Timestamp(seconds=253_402_300_799))
    client.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=[soon]))
    answer = client.recommend("user-4", filter=rec.Filter(keep_categories=["Soon"]))
    assert not answer.results
    assert [count.field for count in answer.filter_counts] == ["catalog", "keep_categories"]
    client.catalog.DeleteItems(catalog_pb2.DeleteItemsRequest(item_ids=[soon.item_id]))


def test_reasons_name_recent_items_of_the_shopper(client: Client) -> None:
    visit = views("Garden")
    answer = client.recommend("user-1", recent_events=visit, explain=True, page_size=20)
    plain = client.recommend("user-1", recent_events=visit, page_size=20)
    # in the same order, but for two that score alike: they may change places as events age
    scores = {result.item_id: result.score for result in plain.results}
    assert {result.item_id: result.score for result in answer.results} == pytest.approx(scores, abs=0.01)
    assert all(result.reason.strand != REASON.STRAND_UNSPECIFIED for result in answer.results)
    because = [item_id for result in answer.results for item_id in result.reason.because_item_ids]
    assert because and all(len(result.reason.because_item_ids) <= 3 for result in answer.results)
    assert set(because) & set(ids(visit))


def test_diversity_changes_the_order_and_nothing_else_does(client: Client) -> None:
    visit = views("Kitchen")
    plain = client.recommend("diverse", recent_events=visit)
    same = client.recommend("diverse", recent_events=visit, diversity=0)
    spread = client.recommend("diverse", recent_events=visit, diversity=1)
    assert ids(plain.results) == ids(same.results)
    assert ids(spread.results)[0] == ids(plain.results)[0]
    assert len({taste(item_id) for item_id in ids(spread.results)}) > 1
    assert ids(spread.results) != ids(plain.results)


def test_attributes_and_context_are_taken(client: Client) -> None:
    client.users.UpsertUsers(
        user_pb2.UpsertUsersRequest(users=[user_pb2.User(user_id="user-50", age=33, gender="f", country="GB")])
    )
    context = rec.Context(country="GB", device="mobile", local_time=Timestamp(seconds=NOW_MS // 1000))
    assert client.recommend("user-50", context=context).tier == rec.TIER_FULL
