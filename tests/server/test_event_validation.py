"""Each event is checked by itself: a bad one is refused with its field named, and its neighbours are kept."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import REGISTRY

from braid.v1 import event_pb2 as event
from features.log.event_log import Outcome
from server.services.event_batch import EventBatch
from tests.server.client import Client, assert_refused, in_seconds, letters, new_event

VIEW, SEARCH = event.EVENT_TYPE_VIEW, event.EVENT_TYPE_SEARCH
NAN, INFINITY = float("nan"), float("inf")

EVENT_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"event_id": ""}, "event_id"),
    ({"event_id": letters(129)}, "event_id"),
    ({"kind": 0}, "type"),
    ({"kind": 8}, "type"),
    ({"kind": -1}, "type"),
    ({"user_id": ""}, "user_id"),
    ({"user_id": letters(129)}, "user_id"),
    ({"session_id": letters(129)}, "session_id"),
    ({"item_id": ""}, "item_id"),
    ({"item_id": letters(129)}, "item_id"),
    ({"kind": SEARCH, "query": "q"}, "item_id"),
    ({"kind": SEARCH, "item_id": ""}, "query"),
    ({"query": letters(1001)}, "query"),
    ({"event_time": None}, "event_time"),
    ({"event_time": in_seconds(24 * 3600)}, "event_time"),
    ({"event_time": Timestamp(seconds=-62_135_596_801)}, "event_time"),
    ({"event_time": Timestamp(seconds=2**60)}, "event_time"),
    ({"event_time": Timestamp(nanos=-1)}, "event_time"),
    ({"quantity": -1}, "quantity"),
    ({"quantity": 1_000_001}, "quantity"),
    ({"quantity": NAN}, "quantity"),
    ({"price": -0.01}, "price"),
    ({"price": 1e9 + 1}, "price"),
    ({"price": INFINITY}, "price"),
    ({"order_id": letters(129)}, "order_id"),
    ({"event_id": "a\0b"}, "event_id"),
    ({"user_id": "\0"}, "user_id"),
    ({"session_id": "\0"}, "session_id"),
    ({"item_id": "i\0"}, "item_id"),
    ({"order_id": "\0"}, "order_id"),
    ({"query": "\0"}, "query"),
    ({"attribution_token": "\0"}, "attribution_token"),
    ({"attribution_token": letters(257)}, "attribution_token"),
]


@pytest.mark.parametrize(("fields", "field"), EVENT_REFUSED)
def test_a_bad_event_is_refused_by_field_and_its_neighbours_are_kept(
    empty_client: Client, fields: dict[str, Any], field: str
) -> None:
    good = [new_event(VIEW, "i", user_id="u") for _ in range(2)]
    bad = new_event(**({"kind": VIEW, "item_id": "i", "user_id": "u"} | fields))
    statuses = empty_client.events.WriteEvents(event.WriteEventsRequest(events=[good[0], bad, good[1]])).statuses
    code = event.EventStatus
    assert [status.code for status in statuses] == [code.CODE_STORED, code.CODE_INVALID, code.CODE_STORED]
    assert statuses[1].field == field
    assert statuses[1].description
    assert [status.event_id for status in statuses] == [good[0].event_id, bad.event_id[:128], good[1].event_id]


def test_every_event_is_told_and_counted_by_what_became_of_it() -> None:
    def counted() -> list[float]:
        names = ("stored", "duplicate", "erased", "refused")
        return [REGISTRY.get_sample_value("braid_events_total", {"status": name}) or 0.0 for name in names]

    before = counted()
    batch = EventBatch.of([new_event(VIEW, "i", user_id=user_id) for user_id in ("u", "u", "", "u", "u")])
    told = batch.answered([Outcome.STORED, Outcome.DUPLICATE, Outcome.ERASED, Outcome.REFUSED])
    code = event.EventStatus
    assert [status.code for status in told] == [
        code.CODE_STORED, code.CODE_DUPLICATE, code.CODE_INVALID, code.CODE_ERASED, code.CODE_INVALID]  # fmt: skip
    assert [bool(status.description) for status in told] == [False, False, True, True, True]
    assert [status.field for status in told] == ["", "", "user_id", "", "event"]
    assert np.subtract(counted(), before).tolist() == [1, 1, 1, 2]


def test_an_event_within_the_clock_skew_is_taken_and_one_beyond_it_refused(empty_client: Client) -> None:
    ahead, beyond = (new_event(VIEW, "i", user_id="u", event_time=in_seconds(seconds)) for seconds in (290, 330))
    assert empty_client.write(ahead, beyond) == [event.EventStatus.CODE_STORED, event.EventStatus.CODE_INVALID]


def test_an_id_of_megabytes_is_refused_and_not_sent_back(empty_client: Client) -> None:
    good, bad = (new_event(VIEW, "i", user_id="u", event_id=name) for name in (uuid4().hex, letters(1_000_000)))
    statuses = empty_client.events.WriteEvents(event.WriteEventsRequest(events=[good, bad])).statuses
    assert [status.code for status in statuses] == [event.EventStatus.CODE_STORED, event.EventStatus.CODE_INVALID]
    assert (statuses[1].field, statuses[1].event_id) == ("event_id", letters(128))


@pytest.mark.parametrize("count", [0, 1001])
def test_write_events_refuses_batches_of_other_sizes(empty_client: Client, count: int) -> None:
    assert_refused(lambda: empty_client.write(*[new_event(VIEW, "i", user_id="u")] * count), "events")
