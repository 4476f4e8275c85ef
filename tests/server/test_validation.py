"""Every limit that the protos state: the limit itself is taken, one beyond is refused by name."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from braid.v1 import catalog_pb2 as catalog
from braid.v1 import event_pb2 as event
from braid.v1 import recommendation_pb2 as rec
from braid.v1 import user_pb2 as user
from server.services.fields import Fields
from server.services.page_tokens import page_token
from tests.server.client import Client, assert_refused, in_seconds, letters, new_event, refusal

VIEW, SEARCH = event.EVENT_TYPE_VIEW, event.EVENT_TYPE_SEARCH
NAN, INFINITY = float("nan"), float("inf")


def recommend(**fields: Any) -> rec.RecommendRequest:
    return rec.RecommendRequest(**({"user_id": "u", "validate_only": True} | fields))


def filtered(**fields: Any) -> rec.RecommendRequest:
    return recommend(filter=rec.Filter(**fields))


def placed(**fields: Any) -> rec.RecommendRequest:
    return recommend(context=rec.Context(**fields))


def with_event(**fields: Any) -> rec.RecommendRequest:
    return recommend(recent_events=[new_event(**({"kind": VIEW, "item_id": "i"} | fields))])


RECOMMEND_TAKEN = [
    recommend(user_id=letters(128), session_id=letters(128)),
    recommend(user_id="", session_id="s"),
    recommend(user_id="two words 🛒"),
    recommend(placement=letters(64), page_size=100, diversity=1),
    recommend(max_per_category=100, category_level=8, max_per_brand=100),
    filtered(keep_categories=[letters(1000)] * 100, drop_brands=[letters(128)] * 100),
    filtered(exclude_item_ids=[f"{number}" for number in range(1000)], min_price=0, max_price=0),
    filtered(repurchase_window=Duration(seconds=0)),
    filtered(keep_categories=["a", "a"], drop_categories=["a/b"], keep_brands=["a", "a"], drop_brands=["A"]),
    filtered(keep_brands=["A", "/B"], drop_brands=["A/", "B"]),
    filtered(exclude_item_ids=["a", "a", "nobody-knows"], exclude_shown_today=True, exclude_purchased=True),
    placed(country=letters(64), device=letters(64), page_category=[letters(128)] * 8, page_item_id=letters(128)),
    placed(local_time=Timestamp(seconds=-62_135_596_800)),
    recommend(recent_events=[new_event(VIEW, "i") for _ in range(50)]),
    with_event(event_time=in_seconds(290)),
    with_event(kind=SEARCH, item_id="", query=letters(1000)),
    with_event(quantity=1e6, price=1e9, order_id=letters(128), attribution_token=letters(256)),
]

RECOMMEND_REFUSED = [
    (recommend(user_id=""), "user_id"),
    (recommend(user_id=letters(129)), "user_id"),
    (recommend(user_id="nul\0"), "user_id"),
    (recommend(session_id=letters(129)), "session_id"),
    (recommend(placement=letters(65)), "placement"),
    (recommend(page_size=101), "page_size"),
    (recommend(max_per_category=101), "max_per_category"),
    (recommend(max_per_category=-1), "max_per_category"),
    (recommend(max_per_brand=-1), "max_per_brand"),
    (recommend(max_per_category=1, category_level=9), "category_level"),
    (recommend(category_level=1), "category_level"),
    (recommend(page_size=-1), "page_size"),
    (recommend(diversity=1.001), "diversity"),
    (recommend(diversity=-0.001), "diversity"),
    (recommend(diversity=NAN), "diversity"),
    (recommend(diversity=INFINITY), "diversity"),
    (filtered(keep_categories=["a"] * 101), "filter.keep_categories"),
    (filtered(keep_categories=[letters(1001)]), "filter.keep_categories[0]"),
    (filtered(drop_categories=["a"] * 101), "filter.drop_categories"),
    (filtered(drop_categories=["a", ""]), "filter.drop_categories[1]"),
    (filtered(keep_brands=["a"] * 101), "filter.keep_brands"),
    (filtered(keep_brands=[letters(129)]), "filter.keep_brands[0]"),
    (filtered(drop_brands=["a"] * 101), "filter.drop_brands"),
    (filtered(drop_brands=[letters(129)]), "filter.drop_brands[0]"),
    (filtered(min_price=-0.01), "filter.min_price"),
    (filtered(min_price=NAN), "filter.min_price"),
    (filtered(max_price=-1), "filter.max_price"),
    (filtered(max_price=INFINITY), "filter.max_price"),
    (filtered(min_price=2, max_price=1), "filter.min_price"),
    (filtered(keep_categories=["a", "b/c"], drop_categories=["d", "b/c"]), "filter.drop_categories[1]"),
    (filtered(keep_categories=["/a"], drop_categories=["a/"]), "filter.drop_categories[0]"),
    (filtered(keep_brands=["A/"], drop_brands=["B", "A/"]), "filter.drop_brands[1]"),
    (filtered(keep_brands=["a"], drop_brands=["b", "a"]), "filter.drop_brands[1]"),
    (filtered(exclude_item_ids=[str(number) for number in range(1001)]), "filter.exclude_item_ids"),
    (filtered(exclude_item_ids=["a"] * 1001), "filter.exclude_item_ids"),
    (filtered(exclude_item_ids=[letters(129)]), "filter.exclude_item_ids[0]"),
    (filtered(repurchase_window=Duration(seconds=-1)), "filter.repurchase_window"),
    (filtered(repurchase_window=Duration(nanos=-1)), "filter.repurchase_window"),
    (filtered(repurchase_window=Duration(seconds=2**62)), "filter.repurchase_window"),
    (placed(country=letters(65)), "context.country"),
    (placed(device=letters(65)), "context.device"),
    (placed(local_time=Timestamp(seconds=-62_135_596_801)), "context.local_time"),
    (placed(local_time=Timestamp(seconds=253_402_300_800)), "context.local_time"),
    (placed(local_time=Timestamp(nanos=-1)), "context.local_time"),
    (placed(local_time=Timestamp(nanos=1_000_000_000)), "context.local_time"),
    (placed(page_category=["a"] * 9), "context.page_category"),
    (placed(page_category=[letters(129)]), "context.page_category[0]"),
    (placed(page_category=["a", ""]), "context.page_category[1]"),
    (placed(page_item_id=letters(129)), "context.page_item_id"),
    (recommend(recent_events=[new_event(VIEW, "i") for _ in range(51)]), "recent_events"),
    (with_event(event_id=""), "recent_events[0].event_id"),
    (with_event(item_id=""), "recent_events[0].item_id"),
]


def item(**fields: Any) -> catalog.Item:
    return catalog.Item(**({"item_id": "limits"} | fields))


ITEM_TAKEN = [
    item(item_id=letters(128), title=letters(1000), category_path=[letters(128)] * 8, brand=letters(128)),
    item(price=0, stock=0, variant_group=letters(128)),
    item(price=1e9, stock=2**63 - 1, attributes={f"{number}{letters(125)}": letters(128) for number in range(32)}),
    item(launch_time=Timestamp(seconds=253_402_300_799)),
]

ITEM_REFUSED = [
    (item(item_id=""), "item_id"),
    (item(item_id=letters(129)), "item_id"),
    (item(title=letters(1001)), "title"),
    (item(category_path=["a"] * 9), "category_path"),
    (item(category_path=["a", ""]), "category_path[1]"),
    (item(category_path=[letters(129)]), "category_path[0]"),
    (item(brand=letters(129)), "brand"),
    (item(price=-0.01), "price"),
    (item(price=1e9 + 1), "price"),
    (item(price=NAN), "price"),
    (item(stock=-1), "stock"),
    (item(attributes={str(number): "" for number in range(33)}), "attributes"),
    (item(attributes={letters(129): ""}), "attributes.key"),
    (item(attributes={"": "value"}), "attributes.key"),
    (item(attributes={"colour": letters(129)}), "attributes[colour]"),
    (item(variant_group=letters(129)), "variant_group"),
    (item(launch_time=Timestamp(seconds=253_402_300_800)), "launch_time"),
]

USER_REFUSED = [
    (user.User(user_id=""), "user_id"),
    (user.User(user_id=letters(129)), "user_id"),
    (user.User(user_id="u", age=-1), "age"),
    (user.User(user_id="u", age=151), "age"),
    (user.User(user_id="u", gender=letters(65)), "gender"),
    (user.User(user_id="u", country=letters(65)), "country"),
    (user.User(user_id="u", attributes={str(number): "" for number in range(33)}), "attributes"),
    (user.User(user_id="u", attributes={letters(129): ""}), "attributes.key"),
    (user.User(user_id="u", attributes={"size": letters(129)}), "attributes[size]"),
]


@pytest.mark.parametrize("request_", RECOMMEND_TAKEN)
def test_recommend_takes_what_is_at_the_limit(empty_client: Client, request_: rec.RecommendRequest) -> None:
    assert empty_client.recommendations.Recommend(request_) == rec.RecommendResponse()


@pytest.mark.parametrize(("request_", "field"), RECOMMEND_REFUSED)
def test_recommend_refuses_what_is_beyond(empty_client: Client, request_: rec.RecommendRequest, field: str) -> None:
    assert_refused(lambda: empty_client.recommendations.Recommend(request_), field)


def test_all_bad_fields_are_named_at_once(empty_client: Client) -> None:
    code, fields = refusal(lambda: empty_client.recommend("", page_size=-1, diversity=2))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert set(fields) == {"user_id", "page_size", "diversity"}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (rec.RankRequest(item_ids=["a"]), "user_id"),
        (rec.RankRequest(user_id="u"), "item_ids"),
        (rec.RankRequest(user_id="u", item_ids=["a"] * 1001), "item_ids"),
        (rec.RankRequest(user_id="u", item_ids=["a", letters(129)]), "item_ids[1]"),
        (rec.RankRequest(user_id="u", item_ids=["a", ""]), "item_ids[1]"),
        (rec.RankRequest(user_id="u", item_ids=["a"], context=rec.Context(device=letters(65))), "context.device"),
        (rec.RankRequest(user_id="u", item_ids=["a"], recent_events=[event.Event()]), "recent_events[0].type"),
        (rec.RankRequest(user_id="u", item_ids=["a"], event_type=event.EVENT_TYPE_IMPRESSION), "event_type"),
        (rec.RankRequest(user_id="u", item_ids=["a"], event_type=event.EVENT_TYPE_SEARCH), "event_type"),
        (rec.RankRequest(user_id="u", item_ids=["a"], event_type=99), "event_type"),
        (rec.RankRequest(user_id="u", item_ids=["a"], event_type=-1), "event_type"),
        (rec.RankRequest(user_id="u", items=[item(item_id=str(number)) for number in range(65)]), "items"),
        (rec.RankRequest(user_id="u", items=[item(), item(item_id="other"), item()]), "items[2].item_id"),
        (rec.RankRequest(user_id="u", items=[item(item_id="")]), "items[0].item_id"),
        (rec.RankRequest(user_id="u", items=[item(price=-1)]), "items[0].price"),
        (rec.RankRequest(user_id="u", item_ids=["a"] * 1000, items=[item()]), "item_ids"),
    ],
)
def test_rank_refuses_what_is_beyond(empty_client: Client, request_: rec.RankRequest, field: str) -> None:
    assert_refused(lambda: empty_client.recommendations.Rank(request_), field)


def test_rank_takes_a_thousand_items(empty_client: Client) -> None:
    answer = empty_client.recommendations.Rank(rec.RankRequest(user_id="u", item_ids=["a"] * 1000))
    assert len(answer.results) == 1000


def test_rank_takes_a_thousand_items_in_all_and_says_so(empty_client: Client) -> None:
    by_content = [item(item_id=str(number)) for number in range(64)]
    answer = empty_client.recommendations.Rank(rec.RankRequest(user_id="u", item_ids=["a"] * 936, items=by_content))
    assert len(answer.results) == 1000
    for ids, sent, count in ((["a"] * 937, by_content, "1001"), ([], [], "0"), (["a"] * 1001, [], "1001")):
        request = rec.RankRequest(user_id="u", item_ids=ids, items=sent)
        _, fields = refusal(lambda request=request: empty_client.recommendations.Rank(request))
        assert fields == {"item_ids": f"and items have {count} entries in all, 1 to 1,000 are allowed"}


def test_rank_takes_items_by_content_alone_in_a_shop_without_a_model(empty_client: Client) -> None:
    request = rec.RankRequest(user_id="u", items=[item(item_id=str(number)) for number in range(64)])
    answer = empty_client.recommendations.Rank(request)
    assert [result.item_id for result in answer.results] == [str(number) for number in range(64)]
    assert all(result.unknown and not result.HasField("probability") for result in answer.results)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (rec.SimilarItemsRequest(), "item_id"),
        (rec.SimilarItemsRequest(item_id=letters(129)), "item_id"),
        (rec.SimilarItemsRequest(item_id="a", page_size=101), "page_size"),
        (rec.SimilarItemsRequest(item_id="a", page_size=-1), "page_size"),
        (
            rec.SimilarItemsRequest(item_id="a", filter=rec.Filter(exclude_purchased=True)),
            "filter.exclude_purchased",
        ),
        (rec.SimilarItemsRequest(item_id="a", filter=rec.Filter(min_price=-1)), "filter.min_price"),
    ],
)
def test_similar_items_refuses_what_is_beyond(
    empty_client: Client, request_: rec.SimilarItemsRequest, field: str
) -> None:
    assert_refused(lambda: empty_client.recommendations.SimilarItems(request_), field)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (rec.GetInterestsRequest(), "user_id"),
        (rec.GetInterestsRequest(session_id=letters(129)), "session_id"),
        (
            rec.GetInterestsRequest(user_id="u", recent_events=[new_event(VIEW, "i") for _ in range(51)]),
            "recent_events",
        ),
    ],
)
def test_get_interests_refuses_what_is_beyond(
    empty_client: Client, request_: rec.GetInterestsRequest, field: str
) -> None:
    assert_refused(lambda: empty_client.recommendations.GetInterests(request_), field)


@pytest.mark.parametrize("item_", ITEM_TAKEN)
def test_an_item_at_the_limits_comes_back_as_it_was_sent(empty_client: Client, item_: catalog.Item) -> None:
    empty_client.catalog.UpsertItems(catalog.UpsertItemsRequest(items=[item_]))
    found = empty_client.catalog.GetItem(catalog.GetItemRequest(item_id=item_.item_id)).item
    empty_client.catalog.DeleteItems(catalog.DeleteItemsRequest(item_ids=[item_.item_id]))
    assert found == item_


@pytest.mark.parametrize(("item_", "field"), ITEM_REFUSED)
def test_a_bad_item_refuses_the_request(empty_client: Client, item_: catalog.Item, field: str) -> None:
    request = catalog.UpsertItemsRequest(items=[item(item_id="neighbour"), item_])
    assert_refused(lambda: empty_client.catalog.UpsertItems(request), f"items[1].{field}")
    code, _ = refusal(lambda: empty_client.catalog.GetItem(catalog.GetItemRequest(item_id="neighbour")))
    assert code == grpc.StatusCode.NOT_FOUND


def test_a_number_just_beyond_its_limit_is_told_to_the_last_digit(empty_client: Client) -> None:
    beyond = catalog.UpsertItemsRequest(items=[item(price=1_000_000_000.5)])
    _, fields = refusal(lambda: empty_client.catalog.UpsertItems(beyond))
    assert fields["items[0].price"] == "is 1000000000.5, 0 to 1,000,000,000 is allowed"


def test_catalog_requests_refuse_other_sizes_duplicates_and_masks(empty_client: Client) -> None:
    service = empty_client.catalog
    many = [item(item_id=str(number)) for number in range(1001)]
    assert_refused(lambda: service.UpsertItems(catalog.UpsertItemsRequest()), "items")
    assert_refused(lambda: service.UpsertItems(catalog.UpsertItemsRequest(items=many)), "items")
    twice = catalog.UpsertItemsRequest(items=[item(), item()])
    assert_refused(lambda: service.UpsertItems(twice), "items[1].item_id")
    masked = catalog.UpsertItemsRequest(items=[item()])
    masked.update_mask.paths.append("brand")
    assert_refused(lambda: service.UpsertItems(masked), "update_mask")
    assert_refused(lambda: service.GetItem(catalog.GetItemRequest()), "item_id")
    assert_refused(lambda: service.DeleteItems(catalog.DeleteItemsRequest()), "item_ids")
    assert_refused(lambda: service.DeleteItems(catalog.DeleteItemsRequest(item_ids=["a"] * 1001)), "item_ids")
    assert_refused(lambda: service.DeleteItems(catalog.DeleteItemsRequest(item_ids=["", "b"])), "item_ids[0]")
    assert_refused(lambda: service.ListItems(catalog.ListItemsRequest(page_size=1001)), "page_size")
    assert_refused(lambda: service.ListItems(catalog.ListItemsRequest(page_size=-1)), "page_size")


@pytest.mark.parametrize(
    "token", ["?!", "a", "_w==", page_token("\0"), page_token(letters(129)), page_token(letters(1000))]
)
def test_a_page_token_that_no_method_gave_is_refused(empty_client: Client, token: str) -> None:
    assert_refused(lambda: empty_client.catalog.ListItems(catalog.ListItemsRequest(page_token=token)), "page_token")


@pytest.mark.parametrize(("user_", "field"), USER_REFUSED)
def test_a_bad_user_refuses_the_request(empty_client: Client, user_: user.User, field: str) -> None:
    request = user.UpsertUsersRequest(users=[user.User(user_id="good"), user_])
    assert_refused(lambda: empty_client.users.UpsertUsers(request), f"users[1].{field}")


def test_user_requests_refuse_other_sizes_and_duplicates(empty_client: Client) -> None:
    service = empty_client.users
    many = [user.User(user_id=str(number)) for number in range(1001)]
    assert_refused(lambda: service.UpsertUsers(user.UpsertUsersRequest()), "users")
    assert_refused(lambda: service.UpsertUsers(user.UpsertUsersRequest(users=many)), "users")
    twice = [user.User(user_id="twice"), user.User(user_id="twice")]
    assert_refused(lambda: service.UpsertUsers(user.UpsertUsersRequest(users=twice)), "users[1].user_id")
    assert_refused(lambda: service.GetUser(user.GetUserRequest()), "user_id")


def test_a_user_at_the_limits_comes_back_as_it_was_sent(empty_client: Client) -> None:
    sent = user.User(
        user_id=letters(128),
        age=150,
        gender=letters(64),
        country=letters(64),
        attributes={f"{number}{letters(125)}": letters(128) for number in range(32)},
    )
    empty_client.users.UpsertUsers(user.UpsertUsersRequest(users=[sent]))
    assert empty_client.users.GetUser(user.GetUserRequest(user_id=sent.user_id)).user == sent


def test_times_and_durations_count_by_the_millisecond() -> None:
    fields = Fields()
    assert fields.time_ms("time", Timestamp(seconds=1, nanos=999_999_999)) == 1_999
    assert fields.time_ms("time", Timestamp(seconds=-1, nanos=1_000_000)) == -999
    assert fields.duration_ms("duration", Duration(seconds=2, nanos=5_000_000)) == 2_005
    fields.done()
