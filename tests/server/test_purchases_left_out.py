"""`exclude_purchased` is exact while the feature store is gone: the event log tells what was bought."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import Engine

from braid.v1 import catalog_pb2, event_pb2
from braid.v1 import recommendation_pb2 as rec
from features import store
from features.inputs.shopper import Purchase, Purchases, ShopperFeatures, ShopperQuery, merge
from features.log.event_log import EventLog
from features.schema import OWN_ITEMS, EventType
from server.deadline import Deadline
from server.hydrate.history_reader import HistoryReader
from server.hydrate.purchase_history import PurchaseHistory
from server.queries import ItemFilter
from server.shop import Shop
from tests.conftest import NewSettings
from tests.server.client import Client, RunningGateway, gateway, ids, new_event
from tests.server.shop import event

BOUGHT = rec.Filter(exclude_purchased=True)


@pytest.fixture(params=["from the start", "from now on"])
def without_features(new_settings: NewSettings, request: pytest.FixtureRequest) -> Iterator[RunningGateway]:
    """A gateway on five items, whose feature store is gone."""
    settings = new_settings()
    store.apply(settings)
    if request.param == "from the start":
        (settings.home / "online.db").unlink()
    with gateway(settings) as on_it:
        items = [catalog_pb2.Item(item_id=f"i{number}") for number in range(5)]
        on_it.client.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=items), timeout=10)
        (settings.home / "online.db").unlink(missing_ok=True)
        yield on_it


def buy(client: Client, item_id: str) -> str:
    """Somebody who has bought an item."""
    user_id = uuid4().hex
    event = new_event(event_pb2.EVENT_TYPE_PURCHASE, item_id, user_id=user_id)
    assert client.write(event) == [event_pb2.EventStatus.CODE_STORED]
    return user_id


def test_what_was_bought_stays_out_and_is_counted(without_features: RunningGateway) -> None:
    client = without_features.client
    user_id = buy(client, "i3")
    answer = client.recommend(user_id, filter=BOUGHT)
    assert sorted(ids(answer.results)) == ["i0", "i1", "i2", "i4"]
    assert [(count.field, count.removed_count) for count in answer.filter_counts] == [("exclude_purchased", 1)]
    long_ago = rec.Filter(exclude_purchased=True, repurchase_window=Duration(seconds=0))
    assert "i3" in ids(client.recommend(user_id, filter=long_ago).results)
    assert "i3" in ids(client.recommend(uuid4().hex, filter=BOUGHT).results)


def test_where_the_log_does_not_answer_either_the_call_is_answered(without_features: RunningGateway) -> None:
    client = without_features.client
    user_id = buy(client, "i3")
    with closing(sqlite3.connect(without_features.settings.home / "braid.db")) as log:
        log.execute("ALTER TABLE events RENAME TO away")
    answer = client.recommend(user_id, filter=BOUGHT)
    assert len(answer.results) == 5


async def test_an_item_that_was_bought_again_stays_out_though_the_feature_stores_full_row_is_behind(
    engine: Engine,
) -> None:
    now_ms = 1_790_000_000_000
    long_ago_ms = now_ms - 90 * 86_400_000
    events = [
        event(EventType.PURCHASE, "i0", now_ms - 1_000, "anna"),
        event(EventType.PURCHASE, "i0", long_ago_ms, "anna"),
        event(EventType.VIEW, "i1", now_ms - 1_000, "anna"),
        event(EventType.PURCHASE, "i2", now_ms - 1_000, "ben"),
    ]
    EventLog(engine).append(events, now_ms)
    row = Purchases.of(Purchase(f"i{number}", 1, long_ago_ms, long_ago_ms) for number in range(OWN_ITEMS))
    query = ShopperQuery(user_id="anna", session_id="", now_ms=now_ms)
    shopper = merge([ShopperFeatures(purchases=row)], query)
    wanted = ItemFilter(exclude_purchased=True, repurchase_window_ms=30 * 86_400_000)
    with closing(HistoryReader(budget_s=10.0)) as reader:
        shop: Any = SimpleNamespace(history=PurchaseHistory(engine, reader))
        assert await Shop.bought_item_ids(shop, shopper, query, wanted, Deadline()) == ["i0"]
