"""Slow and hostile clients: what they take has a bound, and the others are served."""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from braid.v1 import event_pb2, event_pb2_grpc, recommendation_pb2
from server.overload.connections import MAX_MESSAGE_BYTES, MAX_STREAMS_A_CONNECTION, RESERVED_DESCRIPTORS
from server.overload.untaken import MAX_LATE, shut_down
from server.services.intake import MAX_SLOW
from tests.conditions import eventually
from tests.conftest import NewSettings
from tests.processes import environment, running, tail, until_up
from tests.server.client import SERVING, Client, RunningGateway, gateway, new_event
from tests.server.test_access import outcomes

MIB = 1 << 20
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
RECOMMEND = "/braid.v1.RecommendationService/Recommend"
MAX_STREAMS = 100


@pytest.fixture(scope="module")
def bounded(new_settings: NewSettings) -> Iterator[RunningGateway]:
    """A gateway with small bounds."""
    with gateway(new_settings(), max_streams=str(MAX_STREAMS), max_connections="150") as running:
        yield running


@dataclass
class Others:
    """Ordinary callers meanwhile."""

    answered: int = 0
    failed: int = 0


@contextmanager
def others_are_served(under_test: RunningGateway) -> Iterator[None]:
    """Somebody who had a connection before goes on calling, and no call fails; memory stays within bounds."""
    process = psutil.Process(under_test.process.pid)
    before_bytes = process.memory_info().rss
    others, stop = Others(), threading.Event()
    client = under_test.client

    def call() -> None:
        while not stop.is_set():
            if outcomes(lambda: client.recommend("u")):
                others.failed += 1
            else:
                others.answered += 1

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
        wanted = others.answered + 10
        eventually(lambda: others.answered >= wanted, within_s=30, what="answers for the others")
    finally:
        stop.set()
        thread.join()
    assert others.failed == 0
    assert process.memory_info().rss - before_bytes < 400 * MIB


def hold(channel: grpc.Channel, method: str) -> grpc.Call:
    """Opens a call and sends nothing on it."""
    nothing = threading.Event()

    def silent() -> Iterator[bytes]:
        nothing.wait(60)
        yield from ()

    call: grpc.Call = channel.stream_stream(method)(silent(), timeout=60)
    call.add_callback(nothing.set)
    return call


def test_streams_on_which_nothing_comes_are_bounded(bounded: RunningGateway) -> None:
    methods = ("/braid.v1.EventService/StreamEvents", "/grpc.health.v1.Health/Watch")
    with others_are_served(bounded), grpc.insecure_channel(bounded.settings.gateway_address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watching = [health.Watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(MAX_STREAMS)]
        assert all(next(watch).status for watch in watching)
        streams = [hold(channel, methods[0]) for _ in range(MAX_STREAMS + 5)]
        eventually(lambda: [call.code() for call in streams if call.done()] == [EXHAUSTED] * 5, what="five refusals")
        assert outcomes(lambda: next(health.Watch(health_pb2.HealthCheckRequest(), timeout=60))) == [EXHAUSTED]
        for call in (*streams, *watching):
            call.cancel()
        request = event_pb2.StreamEventsRequest(events=[new_event(event_pb2.EVENT_TYPE_VIEW, "i", user_id="u")])
        events = event_pb2_grpc.EventServiceStub(channel)
        eventually(lambda: list(events.StreamEvents(iter([request]), timeout=10)), what="room for a stream again")


def test_messages_that_do_not_come_are_bounded_in_number_and_time(bounded: RunningGateway) -> None:
    with others_are_served(bounded), grpc.insecure_channel(bounded.settings.gateway_address) as channel:
        calls = [hold(channel, RECOMMEND) for _ in range(MAX_SLOW + 5)]
        eventually(lambda: sum(call.done() for call in calls) >= 5, what="the refusal of what is more than the bound")
        assert {call.code() for call in calls if call.done()} == {EXHAUSTED}
        eventually(lambda: all(call.done() for call in calls), within_s=30, what="the end of the others")
        codes = [call.code() for call in calls]
        assert codes.count(EXHAUSTED) == 5 and codes.count(grpc.StatusCode.DEADLINE_EXCEEDED) == MAX_SLOW


def test_connections_that_say_nothing_or_nonsense_end_and_are_bounded(bounded: RunningGateway) -> None:
    host, _, port = bounded.settings.gateway_address.rpartition(":")
    with others_are_served(bounded), ExitStack() as connections:
        silent, loud = [], []
        for number in range(200):
            connection = connections.enter_context(socket.create_connection((host, int(port)), timeout=30))
            (loud if number % 2 else silent).append(connection)
        for connection in loud:
            try:
                connection.sendall(os.urandom(2_000))
            except OSError:  # it has been closed already
                continue
        for connection in (*loud, *silent):
            assert ended(connection)


def test_a_burst_beyond_the_line_is_answered_refused_or_dropped_as_the_contract_says(bounded: RunningGateway) -> None:
    request = recommendation_pb2.RecommendRequest(user_id="u")
    ask = bounded.client.recommendations.Recommend
    bounded.client.recommend("u")
    bounded.process.send_signal(signal.SIGSTOP)
    try:
        calls = [ask.future(request, timeout=30) for _ in range(MAX_STREAMS_A_CONNECTION)]
    finally:
        bounded.process.send_signal(signal.SIGCONT)
    codes = {call.code() for call in calls}
    assert grpc.StatusCode.OK in codes
    assert codes <= {grpc.StatusCode.OK, EXHAUSTED, grpc.StatusCode.CANCELLED}


def test_connections_leave_descriptors_for_what_the_gateway_needs_itself(new_settings: NewSettings) -> None:
    settings, most = new_settings(), 600
    host, _, port = settings.gateway_address.rpartition(":")
    command = ["prlimit", f"--nofile={most}:{most}", sys.executable, "-m", "server"]
    log = settings.logs / "gateway.log"
    with running(command, log, env=environment(settings)) as process, ExitStack() as connections:
        client = Client(settings.gateway_address)
        connections.enter_context(client.channel)
        until_up(process, lambda: client.health() == SERVING, log, what="the gateway")
        open_connections = 0
        for _ in range(most):
            connection = connections.enter_context(without_room(settings.gateway_address))
            connection.settimeout(1)
            with suppress(OSError):
                open_connections += bool(connection.recv(1))  # its settings; those beyond the bound end at once
        assert open_connections >= most - RESERVED_DESCRIPTORS - 10
        assert psutil.Process(process.pid).num_fds() <= most - RESERVED_DESCRIPTORS / 2
        assert client.recommend("u").tier
        assert "takes 344 connections" in tail(log)


def ended(connection: socket.socket) -> bool:
    """Reads until the gateway closes the connection; it may have said something before."""
    try:
        while connection.recv(65_536):
            continue
    except ConnectionResetError:
        return True
    return True


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """Of HTTP/2 (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content


def without_room(address: str) -> socket.socket:
    """A connection whose client has said that it takes no byte of any answer (SETTINGS_INITIAL_WINDOW_SIZE 0)."""
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, struct.pack(">HI", 4, 0)))
    return connection


def ask_for_health(connection: socket.socket, count: int) -> None:
    """So many calls, each answered in two bytes."""
    fields = {":method": "POST", ":scheme": "http", ":path": "/grpc.health.v1.Health/Check", ":authority": "shop",
              "content-type": "application/grpc", "te": "trailers"}  # fmt: skip
    texts = (text.encode() for field in fields.items() for text in field)
    plain = [bytes([len(text)]) + text for text in texts]  # RFC 7541, section 6.2.2
    headers = b"".join(b"\0" + name + value for name, value in zip(plain[::2], plain[1::2], strict=True))
    for stream in range(1, 2 * count, 2):
        connection.sendall(frame(1, 4, stream, headers) + frame(0, 1, stream, bytes(5)))


def test_answers_that_are_not_taken_are_bounded_in_number_and_time(bounded: RunningGateway) -> None:
    address = bounded.settings.gateway_address
    with others_are_served(bounded), ExitStack() as connections:
        few, another = (connections.enter_context(without_room(address)) for _ in range(2))
        ask_for_health(few, MAX_LATE)
        for _ in range(5):
            many = connections.enter_context(without_room(address))
            with suppress(OSError):  # it has been cut off already
                ask_for_health(many, 3 * MAX_LATE)
            assert ended(many)
        ask_for_health(another, 1)
        assert ended(few) and ended(another)


@pytest.mark.parametrize("target", ["ipv4:127.0.0.1", "ipv6:[::1]"])
def test_a_connection_is_ended_by_the_name_that_grpc_has_for_its_client(target: str) -> None:
    peers: list[str] = []

    def answer(_request: bytes, context: grpc.ServicerContext) -> bytes:
        peers.append(context.peer())
        return b""

    handler = grpc.method_handlers_generic_handler("s", {"m": grpc.unary_unary_rpc_method_handler(answer)})
    server = grpc.server(ThreadPoolExecutor(1), [handler])
    port = server.add_insecure_port("[::]:0")
    server.start()
    try:
        with grpc.insecure_channel(f"{target}:{port}") as channel:
            channel.unary_unary("/s/m")(b"", timeout=10)
            others = ["unix:", "ipv4:127.0.0.1:1", "ipv6:%5B::1%5D:1"]
            assert shut_down(others) == 0
            assert shut_down([*others, *peers]) == 1
    finally:
        server.stop(None)


def test_messages_at_the_limit_and_beyond_do_not_add_up(bounded: RunningGateway) -> None:
    address = bounded.settings.gateway_address
    filler = event_pb2.Event(event_id="x" * 1_000_000)
    largest = event_pb2.WriteEventsRequest(events=[filler] * (MAX_MESSAGE_BYTES // 1_000_100))

    def send() -> None:
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            events = event_pb2_grpc.EventServiceStub(channel)
            for _ in range(5):
                codes.append(outcomes(lambda: events.WriteEvents(largest, timeout=60)))
            largest_of_all = event_pb2.WriteEventsRequest(events=[filler] * 9)
            codes_beyond.append(outcomes(lambda: events.WriteEvents(largest_of_all, timeout=60)))

    codes: list[list[grpc.StatusCode]] = []
    codes_beyond: list[list[grpc.StatusCode]] = []
    with others_are_served(bounded):
        senders = [threading.Thread(target=send) for _ in range(8)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
    assert codes == [[]] * 40, "each event is refused by itself"
    assert codes_beyond == [[EXHAUSTED]] * 8


def test_metadata_floods_and_unreadable_messages_are_refused(bounded: RunningGateway) -> None:
    channel = bounded.client.channel
    flood = [(f"x-{number}", "y" * 1_000) for number in range(64)]
    with others_are_served(bounded):
        for _ in range(20):
            call = channel.unary_unary(RECOMMEND)
            assert outcomes(lambda call=call: call(b"", metadata=flood, timeout=20)) == [EXHAUSTED]  # type: ignore[misc]
            assert outcomes(lambda call=call: call(b"\xff\xff", timeout=20)) == [  # type: ignore[misc]
                grpc.StatusCode.INVALID_ARGUMENT
            ]
        stream = channel.stream_stream("/braid.v1.EventService/StreamEvents")
        assert outcomes(lambda: list(stream(iter([b"\xff"]), timeout=20))) == [grpc.StatusCode.INVALID_ARGUMENT]
        empty = channel.stream_unary(RECOMMEND)
        assert outcomes(lambda: empty(iter(()), timeout=20)) == [grpc.StatusCode.INVALID_ARGUMENT]
    assert "Traceback" not in bounded.log and '"ERROR"' not in bounded.log
