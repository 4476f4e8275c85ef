"""Refusals that have more to say than a client takes: the client's own limits apply, nothing is raised for it."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from braid.v1 import catalog_pb2 as catalog
from braid.v1 import recommendation_pb2 as rec
from tests.server.client import Client, refusal

TEA = "🍵"

MANY = [
    ("catalog", "UpsertItems", catalog.UpsertItemsRequest(items=[catalog.Item()] * 1_000), "items[0].item_id", 1_999),
    (
        "recommendations",
        "Recommend",
        rec.RecommendRequest(user_id="u", filter=rec.Filter(exclude_item_ids=[""] * 1_000)),
        "filter.exclude_item_ids[0]",
        1_000,
    ),
    ("recommendations", "Rank", rec.RankRequest(user_id="u", item_ids=[""] * 300), "item_ids[0]", 300),
    (
        "catalog",
        "UpsertItems",
        catalog.UpsertItemsRequest(items=[catalog.Item(item_id="i", attributes={TEA * 128: TEA * 129})] * 1_000),
        f"items[0].attributes[{TEA * 128}]",
        1_999,
    ),
]


@pytest.mark.parametrize(("service", "method", "request_", "first", "count"), MANY)
def test_of_many_bad_fields_the_first_are_named_and_the_others_counted(
    empty_client: Client, service: str, method: str, request_: Any, first: str, count: int
) -> None:
    code, fields = refusal(lambda: getattr(getattr(empty_client, service), method)(request_))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    last = fields.pop("request")
    assert next(iter(fields)) == first
    assert last == f"and {count - len(fields)} more; correct these first"


@pytest.mark.parametrize("path", ["n" * 20_000, TEA * 20_000, "%" * 20_000])
def test_a_long_field_is_shown_by_its_ends_beside_what_is_allowed(empty_client: Client, path: str) -> None:
    request = catalog.UpsertItemsRequest(items=[catalog.Item(item_id="i")], update_mask=FieldMask(paths=[path]))
    code, fields = refusal(lambda: empty_client.catalog.UpsertItems(request))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert fields["update_mask"].startswith(f"names '{path[0]}")
    assert fields["update_mask"].endswith("only price, stock, title are allowed")
    assert len(fields["update_mask"]) <= 300


def test_the_message_of_an_id_that_grows_on_the_wire_says_what_to_do(empty_client: Client) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        empty_client.catalog.GetItem(catalog.GetItemRequest(item_id=TEA * 128))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert refused.value.details().startswith(f"item_id: the catalogue has no '{TEA}")
    assert refused.value.details().endswith(f"{TEA}'; add it with UpsertItems")
