"""Gateways that go and come under load: who follows their health sees no failed call, and no event is lost."""

from __future__ import annotations

import json
import re
import signal
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from braid.v1 import event_pb2, event_pb2_grpc, recommendation_pb2, recommendation_pb2_grpc
from features.database.engine import open_database
from features.log.event_log import EventLog
from features.settings import Settings
from tests.conditions import eventually
from tests.conftest import NewSettings
from tests.server.client import NOT_SERVING, RunningGateway, gateway, new_event

FOLLOWS_HEALTH = json.dumps(
    {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": "braid.v1.EventService"}}
)
WRITERS = 3


@dataclass
class Load:
    """What became of calls that go on all the time."""

    answers: int = 0
    failures: list[str] = field(default_factory=list)
    acknowledged: set[str] = field(default_factory=set)


@contextmanager
def load_on(*addresses: str) -> Iterator[Load]:
    """Writes and recommendations over one channel to all the addresses, one call after the other in each thread."""
    load, stop = Load(), threading.Event()
    options = [("grpc.service_config", FOLLOWS_HEALTH), ("grpc.max_reconnect_backoff_ms", 500)]
    with grpc.insecure_channel("ipv4:" + ",".join(addresses), options) as channel:
        grpc.channel_ready_future(channel).result(20)
        events = event_pb2_grpc.EventServiceStub(channel)
        recommendations = recommendation_pb2_grpc.RecommendationServiceStub(channel)

        def call() -> None:
            while not stop.is_set():
                event = new_event(event_pb2.EVENT_TYPE_VIEW, "i", user_id="u")
                try:
                    events.WriteEvents(event_pb2.WriteEventsRequest(events=[event]), timeout=20)
                    load.acknowledged.add(event.event_id)
                    recommendations.Recommend(recommendation_pb2.RecommendRequest(user_id="u"), timeout=20)
                    load.answers += 1
                except grpc.RpcError as error:
                    load.failures.append(f"{error.code()}: {error.details()}")

        threads = [threading.Thread(target=call) for _ in range(WRITERS)]
        for thread in threads:
            thread.start()
        try:
            yield load
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def stored(settings: Settings) -> set[str]:
    engine = open_database(settings.log_url)
    found = {event_id for frame in EventLog(engine).scan() for event_id in frame["event_id"]}
    engine.dispose()
    return found


def takes_events(counters: str) -> bool:
    """Whether the process with these counters has stored an event."""
    with urllib.request.urlopen(f"http://{counters}/metrics", timeout=10) as page:
        return (
            re.search(r'^braid_events_total\{status="stored"\} [1-9]', page.read().decode(), re.MULTILINE) is not None
        )


def more_answers(load: Load, count: int = 30) -> None:
    wanted = load.answers + count
    eventually(lambda: load.answers >= wanted, within_s=60, what=f"{count} more answers")


def test_two_gateways_are_restarted_one_after_the_other_without_a_failed_call(new_settings: NewSettings) -> None:
    first = new_settings()
    host, _, port = first.gateway_address.rpartition(":")
    addresses = [f"{host}:{int(port) + number}" for number in range(4)]  # all four are the shop's
    both = [first.model_copy(update={"gateway_address": address}) for address in addresses[:2]]
    counters = addresses[2:]
    with ExitStack() as stack:

        def start(number: int) -> tuple[ExitStack, RunningGateway]:
            own = stack.enter_context(ExitStack())
            return own, own.enter_context(gateway(both[number], notice_s="2", metrics_address=counters[number]))

        running = [start(0), start(1)]
        with load_on(*addresses[:2]) as load:
            for number, (own, under_test) in enumerate(running):
                eventually(lambda: all(map(takes_events, counters)), within_s=60, what="calls for both")
                under_test.process.send_signal(signal.SIGTERM)
                assert under_test.process.wait(30) == 0
                more_answers(load)
                own.close()
                start(number)
        assert load.failures == []
        assert load.acknowledged <= stored(first)


def test_health_turns_before_calls_are_refused_and_everybody_who_watches_is_told(new_settings: NewSettings) -> None:
    with gateway(new_settings(), notice_s="3") as under_test:
        health = health_pb2_grpc.HealthStub(under_test.client.channel)
        request = health_pb2.HealthCheckRequest(service="braid.v1.EventService")
        leaves, *stay = [health.Watch(request, timeout=60) for _ in range(3)]
        assert {next(watching).status for watching in (leaves, *stay)} == {health_pb2.HealthCheckResponse.SERVING}
        leaves.cancel()
        under_test.process.send_signal(signal.SIGTERM)
        assert [next(watching).status for watching in stay] == [NOT_SERVING] * 2
        assert under_test.client.health() == NOT_SERVING
        assert under_test.client.write(new_event(event_pb2.EVENT_TYPE_VIEW, "i", user_id="u"))
        assert under_test.process.wait(30) == 0
        for watching in stay:
            try:
                next(watching)
                raise AssertionError("the call goes on after the end")
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE
