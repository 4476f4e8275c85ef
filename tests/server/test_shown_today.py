"""`exclude_shown_today`: what was answered to the shopper since midnight, by this process or another."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from braid.v1 import recommendation_pb2 as rec
from features.answers.answers import NewAnswer, answer_row, append_answers
from features.database.engine import open_database
from features.erasure.tombstones import Tombstones
from features.inputs.shopper import ShopperQuery
from tests.conditions import eventually
from tests.server.client import Client, RunningGateway, assert_refused, ids

TODAY = rec.Filter(exclude_shown_today=True)
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def shown(client: Client, **fields: Any) -> list[str]:
    return ids(client.recommend(**({"user_id": ""} | fields)).results)


def record(shop: RunningGateway, item_id: str, *, user_id: str = "", session_id: str = "", age_ms: int = 0) -> None:
    """An answer as some process wrote it down a while ago."""
    engine = open_database(shop.settings.log_url)
    answer = NewAnswer(
        attribution_token=uuid4().hex,
        query=ShopperQuery(user_id=user_id, session_id=session_id, now_ms=time.time_ns() // 1_000_000 - age_ms),
        placement="elsewhere",
        options={},
        release=0,
        tier=4,
        item_ids=[item_id],
        stored=False,
        inputs=None,
    )
    with engine.begin() as connection:
        append_answers(connection, Tombstones(shop.settings), [answer_row(answer)])
    engine.dispose()


@pytest.mark.parametrize("known", [True, False])
def test_a_shopper_who_has_seen_everything_gets_nothing_and_is_told_why(client: Client, known: bool) -> None:
    user_id = "user-9" if known else uuid4().hex
    everything = shown(client, user_id=user_id, page_size=100, session_id=uuid4().hex, placement="whole")
    nothing = client.recommend(user_id, filter=TODAY)
    assert not nothing.results
    counts = {count.field: count.removed_count for count in nothing.filter_counts}
    assert counts["exclude_shown_today"] == len(everything)


def test_what_this_process_answered_a_moment_ago_counts_at_once(client: Client) -> None:
    user_id, pages = uuid4().hex, []
    for place in range(5):
        pages.append(shown(client, user_id=user_id, placement=f"row {place}", filter=TODAY))
    assert len({item_id for page in pages for item_id in page}) == 50
    assert len(set(shown(client, user_id=user_id)) & set(pages[0])) == 10  # only who asks


def test_person_and_session_are_joined(client: Client) -> None:
    session_id = uuid4().hex
    anonymous = shown(client, session_id=session_id)
    signed_in = shown(client, user_id=uuid4().hex, session_id=session_id, filter=TODAY)
    assert len(signed_in) == 10 and not set(anonymous) & set(signed_in)
    still = shown(client, session_id=session_id, filter=TODAY)
    assert not (set(anonymous) | set(signed_in)) & set(still)
    stranger = shown(client, session_id=uuid4().hex, filter=TODAY)
    assert set(stranger) == set(anonymous)


def test_today_begins_at_the_shoppers_midnight(client: Client, released_shop: RunningGateway) -> None:
    user_id = uuid4().hex
    record(released_shop, "music-04", user_id=user_id, age_ms=2 * HOUR_MS)
    for hour, expected in ((1, False), (3, True), (23, True)):
        local = rec.Context(local_time=Timestamp(seconds=20_000 * 86_400 + hour * 3_600))
        found = shown(client, user_id=user_id, context=local, filter=TODAY, page_size=100)
        assert ("music-04" not in found) == expected, hour
        user_id = uuid4().hex  # what this page showed counts from here on
        record(released_shop, "music-04", user_id=user_id, age_ms=2 * HOUR_MS)


def test_yesterday_does_not_count(client: Client, released_shop: RunningGateway) -> None:
    session_id = uuid4().hex
    record(released_shop, "music-04", session_id=session_id, age_ms=DAY_MS)
    assert "music-04" in shown(client, session_id=session_id, filter=TODAY, page_size=100)


def test_what_another_process_answered_counts_soon(client: Client, second_client: Client) -> None:
    user_id = uuid4().hex
    first = set(shown(second_client, user_id=user_id, page_size=20))
    eventually(
        lambda: not first & set(shown(client, user_id=user_id, filter=TODAY, page_size=100)),
        within_s=1,
        every_s=0.05,
        what="the other process's answer in the database",
    )


def test_similar_items_knows_no_shopper(client: Client) -> None:
    request = rec.SimilarItemsRequest(item_id="music-05", filter=TODAY)
    assert_refused(lambda: client.recommendations.SimilarItems(request), "filter.exclude_shown_today")
