"""StreamEvents: answered in order, as many in flight as fit, and nothing acknowledged that is not in the log."""

from __future__ import annotations

import json
import queue
import signal
import sqlite3
from collections.abc import Callable, Iterator
from uuid import uuid4

import grpc
import pytest

from braid.v1 import event_pb2 as pb
from features.database.engine import open_database
from features.log.event_log import EventLog
from features.settings import Settings
from tests.conditions import eventually
from tests.conftest import NewSettings
from tests.server.client import RunningGateway, gateway, new_event, refusal

VIEW = pb.EVENT_TYPE_VIEW
STORED, DUPLICATE, INVALID = pb.EventStatus.CODE_STORED, pb.EventStatus.CODE_DUPLICATE, pb.EventStatus.CODE_INVALID


def batch(count: int, session: str = "stream") -> pb.StreamEventsRequest:
    return pb.StreamEventsRequest(events=[new_event(VIEW, "i", session_id=session) for _ in range(count)])


def codes(response: pb.StreamEventsResponse) -> list[int]:
    return [status.code for status in response.statuses]


def stored_ids(settings: Settings) -> set[str]:
    engine = open_database(settings.log_url)
    found = {event_id for frame in EventLog(engine).scan() for event_id in frame["event_id"]}
    engine.dispose()
    return found


class Requests:
    """Requests of a stream that stays open until it is told to end."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[pb.StreamEventsRequest | None] = queue.SimpleQueue()
        self.send = self._queue.put

    def __iter__(self) -> Iterator[pb.StreamEventsRequest]:
        return iter(self._queue.get, None)


def test_many_requests_in_flight_are_answered_in_order(empty_shop: RunningGateway) -> None:
    requests = [batch(20) for _ in range(200)]
    requests[7].events[3].item_id = ""
    requests[8].events[4].CopyFrom(requests[6].events[4])
    responses = list(empty_shop.client.events.StreamEvents(iter(requests), timeout=60))
    sent = [[event.event_id for event in request.events] for request in requests]
    assert [[status.event_id for status in response.statuses] for response in responses] == sent
    expected = [[STORED] * 20 for _ in requests]
    expected[7][3], expected[8][4] = INVALID, DUPLICATE
    assert [codes(response) for response in responses] == expected
    assert responses[7].statuses[3].field == "item_id"
    assert {name for names in sent for name in names} - stored_ids(empty_shop.settings) == {sent[7][3]}


def test_a_response_comes_before_the_next_request_is_sent(empty_shop: RunningGateway) -> None:
    requests = Requests()
    responses = empty_shop.client.events.StreamEvents(iter(requests), timeout=60)
    for _ in range(3):
        requests.send(batch(2))
        assert codes(next(responses)) == [STORED] * 2
    requests.send(None)
    assert list(responses) == []


@pytest.mark.parametrize("count", [0, 1_001])
def test_a_request_of_a_wrong_size_ends_the_stream_after_what_came_before_it(
    empty_shop: RunningGateway, count: int
) -> None:
    responses = empty_shop.client.events.StreamEvents(iter([batch(1_000), batch(count), batch(1)]), timeout=60)
    assert codes(next(responses)) == [STORED] * 1_000
    code, fields = refusal(lambda: next(responses))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "1 to 1000" in fields["events"]


def test_a_full_queue_makes_a_stream_wait_where_a_call_is_refused(new_settings: NewSettings) -> None:
    with gateway(new_settings(), max_queued_events="10") as under_test:
        requests = [batch(count) for count in [7, 9, 11] * 10]
        responses = list(under_test.client.events.StreamEvents(iter(requests), timeout=60))
        assert [codes(response) for response in responses] == [[STORED] * count for count in [7, 9, 11] * 10]


def test_a_locked_database_ends_the_stream_and_what_was_not_answered_is_sent_again(new_settings: NewSettings) -> None:
    with gateway(new_settings(), write_budget_ms="1000") as under_test:
        requests, sent = Requests(), [batch(5) for _ in range(20)]
        responses = under_test.client.events.StreamEvents(iter(requests), timeout=60)
        requests.send(sent[0])
        assert codes(next(responses)) == [STORED] * 5
        other = sqlite3.connect(under_test.settings.home / "braid.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for request in sent[1:]:
            requests.send(request)
        with pytest.raises(grpc.RpcError) as ended:
            next(responses)
        assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "send the same events again" in ended.value.details()
        requests.send(None)
        other.execute("COMMIT")
        other.close()
        again = [
            code
            for response in under_test.client.events.StreamEvents(iter(sent), timeout=60)
            for code in codes(response)
        ]
        assert again[:5] == [DUPLICATE] * 5 and set(again) <= {STORED, DUPLICATE}
        assert stored_ids(under_test.settings) == {event.event_id for request in sent for event in request.events}
        assert "never retrieved" not in under_test.log and under_test.log.count('"ERROR"') == 1


def test_sigterm_answers_what_was_read_and_says_where_to_go_on(new_settings: NewSettings) -> None:
    with gateway(new_settings(), drain_s="30") as under_test:
        idle = Requests()
        events = under_test.client.events
        waiting = events.StreamEvents(iter(idle), timeout=60)
        idle.send(batch(1))
        assert codes(next(waiting)) == [STORED]

        def endless() -> Iterator[pb.StreamEventsRequest]:
            while True:
                yield batch(50, "busy")

        acknowledged: list[str] = []

        def read(responses: Iterator[pb.StreamEventsResponse], until: Callable[[], bool]) -> None:
            while not until():
                acknowledged.extend(status.event_id for status in next(responses).statuses)

        working = events.StreamEvents(endless(), timeout=60)
        read(working, lambda: len(acknowledged) > 200)
        under_test.process.send_signal(signal.SIGTERM)
        for stream in (waiting, working):
            with pytest.raises(grpc.RpcError) as ended:
                read(stream, lambda: False)
            assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
            if stream is waiting:  # a client that goes on sending may see the connection end before the reason
                assert "open another stream" in ended.value.details()
        idle.send(None)
        assert under_test.process.wait(20) == 0
        assert set(acknowledged) <= stored_ids(under_test.settings)
        messages = [json.loads(line)["message"] for line in under_test.log.splitlines()]
        assert messages[-1] == "stopped" and not any("failed" in message for message in messages)


@pytest.mark.parametrize("ending", ["cancelled", "past its deadline"])
def test_a_caller_who_goes_leaves_nothing_behind(new_settings: NewSettings, ending: str) -> None:
    with gateway(new_settings(), max_calls="1") as under_test:
        client = under_test.client
        requests = Requests()
        stream = client.events.StreamEvents(iter(requests), timeout=60 if ending == "cancelled" else 2)
        requests.send(batch(1))
        assert codes(next(stream)) == [STORED]
        assert refusal(lambda: client.write(new_event(VIEW, "i", user_id="u")))[0] == (
            grpc.StatusCode.RESOURCE_EXHAUSTED
        )
        for _ in range(100):
            requests.send(batch(100))
        if ending == "cancelled":
            stream.cancel()
        with pytest.raises(grpc.RpcError) as ended:
            for _ in stream:
                pass
        assert ended.value.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
        requests.send(None)
        eventually(lambda: client.write(new_event(VIEW, "i", user_id="u")) == [STORED], what="the stream's place")
        messages = [json.loads(line)["message"] for line in under_test.log.splitlines()]
        assert messages[-1] == "serving", messages


def test_an_event_is_signed_in_over_the_stream_too(empty_shop: RunningGateway) -> None:
    session, user = uuid4().hex, uuid4().hex
    request = batch(3, session)
    request.events[1].user_id = user
    assert codes(next(empty_shop.client.events.StreamEvents(iter([request]), timeout=60))) == [STORED] * 3
    engine = open_database(empty_shop.settings.log_url)
    recent = EventLog(engine).recent_of([f"u:{user}", f"s:{session}"], 10)
    engine.dispose()
    by_time = sorted((event.event_time.ToMilliseconds(), event.event_id) for event in request.events)
    last_ms = request.events[1].event_time.ToMilliseconds()
    theirs = {name for time_ms, name in by_time if time_ms <= last_ms}
    assert set(recent.filter(recent["shopper"] == f"u:{user}")["event_id"]) == theirs
