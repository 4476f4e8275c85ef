"""The limit of calls follows how long they are delayed; what is more is refused at once, and told when to come back."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from prometheus_client import REGISTRY

from braid.v1 import event_pb2
from braid.v1 import recommendation_pb2 as rec
from server.errors import Overloaded
from server.overload.admission import (
    AT_START,
    FEWEST,
    FEWEST_IN_A_SWITCH,
    LEAST_LINE_S,
    LINE,
    QUICKEST_S,
    WINDOW_S,
    Admission,
    CallLimit,
)
from tests.clock import Clock
from tests.processes import free_ports
from tests.server.client import SERVING, RunningGateway, gateway, new_event

TARGET_S = 0.05
METHOD = "Recommend"


class Windows:
    """An admission whose windows a test fills."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.line_s = 0.0
        self.switching = False
        self.admission = Admission(
            CallLimit(4_000),
            target_s=TARGET_S,
            line_s=lambda: self.line_s,
            switching=lambda: self.switching,
            clock=self.clock,
        )

    def pass_with(self, calls: int, seconds: float) -> None:
        """One window: so many calls at once, as far as they are taken, each of so many seconds."""
        taken = min(calls, int(self.admission.limit))
        for _ in range(taken):
            self.admission.enter()
        self.clock.now_s += WINDOW_S
        for _ in range(taken):
            self.admission.leave(METHOD, seconds)
        self.admission.adjust()


def test_under_load_the_limit_settles_where_the_delay_is_about_the_target() -> None:
    windows = Windows()
    windows.pass_with(1, 0.005)
    per_call_s = 0.002
    for _ in range(50):
        windows.pass_with(10_000, 0.005 + per_call_s * windows.admission.limit)
    assert TARGET_S <= per_call_s * windows.admission.limit <= 1.5 * TARGET_S
    assert REGISTRY.get_sample_value("braid_admission_limit") == windows.admission.limit


def test_a_limit_that_is_not_used_stays() -> None:
    windows = Windows()
    for _ in range(50):
        windows.pass_with(3, 0.005)
    assert windows.admission.limit == AT_START


def test_calls_that_are_all_slow_are_not_delayed() -> None:
    windows = Windows()
    for _ in range(50):
        windows.pass_with(10_000, 0.3)
    assert windows.admission.limit > AT_START


def test_after_a_hang_the_limit_comes_back_within_five_seconds() -> None:
    windows = Windows()
    windows.pass_with(20, 0.005)
    for _ in range(20):
        windows.pass_with(20, 0.5)
    assert windows.admission.limit == FEWEST
    for _ in range(round(5 / WINDOW_S)):
        windows.pass_with(1_000, 0.005)
    assert windows.admission.limit >= AT_START


def test_after_a_hitch_a_limit_that_is_used_comes_back_within_a_second() -> None:
    windows = Windows()
    windows.pass_with(20, 0.005)
    for _ in range(5):
        windows.pass_with(20, 0.5)
    assert windows.admission.limit < AT_START / 4
    for _ in range(round(1 / WINDOW_S)):
        windows.pass_with(1_000, 0.005 + TARGET_S / 4)
    assert windows.admission.limit >= AT_START


def test_a_delay_counts_by_those_under_way_with_the_call_and_not_by_those_let_in_since() -> None:
    """The calls of the last window were as many as the limit was; what they tell holds for fewer."""
    windows = Windows()
    windows.pass_with(1, 0.005)
    taken = int(windows.admission.limit)
    for _ in range(taken):
        windows.admission.enter()
    windows.clock.now_s += WINDOW_S
    windows.admission.adjust()
    for _ in range(taken // 2):
        windows.admission.leave(METHOD, 0.005 + 2 * TARGET_S)
    windows.admission.adjust()
    after_half = windows.admission.limit
    for _ in range(taken // 2):
        windows.admission.leave(METHOD, 0.005 + 2 * TARGET_S)
    windows.clock.now_s += WINDOW_S
    windows.admission.adjust()
    assert AT_START / 2 < windows.admission.limit <= after_half < AT_START


def test_while_no_call_ends_the_limit_stays() -> None:
    windows = Windows()
    for _ in range(AT_START):
        windows.admission.enter()
    for _ in range(20):
        windows.clock.now_s += WINDOW_S
        windows.admission.adjust()
    assert windows.admission.limit == AT_START


def test_the_longer_calls_wait_to_be_seen_the_fewer_come_in_and_a_release_being_made_ready_is_no_reason() -> None:
    windows = Windows()
    for _ in range(AT_START // 2):
        windows.admission.enter()
    refused = []
    for share in (0.0, 0.4, 0.6, 2.0):
        windows.line_s = share * max(LEAST_LINE_S, LINE * TARGET_S)
        refused.append(windows.admission.full)
    assert refused == [False, False, True, True]
    windows.switching = True
    assert not windows.admission.full


def test_a_long_line_is_no_reason_to_refuse_the_few() -> None:
    windows = Windows()
    windows.line_s = 10.0
    for _ in range(FEWEST):
        assert not windows.admission.full
        windows.admission.enter()
    assert windows.admission.full


def test_a_line_that_takes_the_whole_limit_leaves_those_under_way_alone() -> None:
    windows = Windows()
    windows.line_s = 10.0
    for _ in range(10):
        windows.pass_with(20, 0.005)
    assert windows.admission.limit == AT_START


def test_while_a_release_is_made_ready_calls_rather_wait_than_be_refused_and_afterwards_the_target_holds_again() -> (
    None
):
    windows = Windows()
    windows.pass_with(20, 0.005)
    for _ in range(20):
        windows.pass_with(20, 0.5)
    assert windows.admission.limit == FEWEST
    windows.switching = True
    for _ in range(20):
        windows.pass_with(20, 0.5)
        assert windows.admission.limit == FEWEST_IN_A_SWITCH
    windows.switching = False
    for _ in range(20):
        windows.pass_with(20, 0.5)
    assert windows.admission.limit == FEWEST


def test_a_model_that_has_become_slower_is_the_new_measure_after_a_while() -> None:
    windows = Windows()
    windows.pass_with(20, 0.005)
    for _ in range(round(2 * QUICKEST_S / WINDOW_S) + 1):
        windows.pass_with(20, 0.3)
    before = windows.admission.limit
    windows.pass_with(20, 0.3)
    assert windows.admission.limit > before


def test_one_call_too_many_is_refused_and_not_counted() -> None:
    calls = CallLimit(3)
    admission = Admission(calls, target_s=TARGET_S)
    for _ in range(3):
        admission.enter()
    for limit in (admission, calls):
        with pytest.raises(Overloaded):
            limit.enter()
    admission.leave(METHOD, 0.001)
    assert calls.under_way == admission.under_way == 2
    calls.enter()


def test_calls_beyond_the_limit_are_refused_though_the_process_could_take_more() -> None:
    windows = Windows()
    for _ in range(AT_START):
        windows.admission.enter()
    with pytest.raises(Overloaded) as refused:
        windows.admission.enter()
    assert refused.value.retry_after_s > 0 and windows.admission.under_way == AT_START


@pytest.fixture
def loaded(released_shop: RunningGateway) -> Iterator[RunningGateway]:
    """A gateway of its own, since its limit is."""
    settings = released_shop.settings.model_copy(update={"gateway_address": f"127.0.0.1:{free_ports()}"})
    with gateway(settings, target_delay_ms="1") as on_it:
        yield on_it


def test_under_load_some_are_answered_in_full_others_told_to_come_back_and_events_and_health_go_on(
    loaded: RunningGateway,
) -> None:
    client = loaded.client
    refusals: list[grpc.RpcError] = []
    tiers: Counter[int] = Counter()
    end = threading.Event()

    def ask_without_end() -> None:
        while not end.is_set():
            request = rec.RecommendRequest(user_id="user-3")
            under_way = [client.recommendations.Recommend.future(request, timeout=10) for _ in range(4 * AT_START)]
            for call in under_way:
                if error := call.exception():
                    refusals.append(error)
                else:
                    tiers[call.result().tier] += 1

    asking = threading.Thread(target=ask_without_end)
    asking.start()
    try:
        view = event_pb2.EVENT_TYPE_VIEW
        for _ in range(20):
            assert client.write(new_event(view, "music-01", user_id="loaded")) == [event_pb2.EventStatus.CODE_STORED]
            assert client.health() == SERVING
    finally:
        end.set()
        asking.join()
    assert set(tiers) == {rec.TIER_FULL}
    assert {error.code() for error in refusals} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    retry = error_details_pb2.RetryInfo()
    assert rpc_status.from_call(refusals[0]).details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() > 0
    assert all(client.recommend("user-3").tier == rec.TIER_FULL for _ in range(20))
