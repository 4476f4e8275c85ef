"""The storefront of the bench that kills: it ends with the bench, and what went wrong in it is the bench's failure."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from benchmarks.kills import storefront
from braid.v1 import event_pb2 as pb
from braid.v1 import event_pb2_grpc
from tests.conditions import eventually
from tests.processes import free_ports


class Door(event_pb2_grpc.EventServiceServicer):
    """Gives every event the same code."""

    def __init__(self, code: pb.EventStatus.Code) -> None:
        self.calls = 0
        self._code = code

    def WriteEvents(self, request: pb.WriteEventsRequest, context: grpc.ServicerContext) -> pb.WriteEventsResponse:
        self.calls += 1
        statuses = [pb.EventStatus(event_id=event.event_id, code=self._code) for event in request.events]
        return pb.WriteEventsResponse(statuses=statuses)


@contextmanager
def served(door: Door) -> Iterator[str]:
    """The door's address."""
    server = grpc.server(ThreadPoolExecutor(1))
    event_pb2_grpc.add_EventServiceServicer_to_server(door, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


def test_what_was_acknowledged_is_known_when_it_ends() -> None:
    with served(Door(pb.EventStatus.CODE_STORED)) as address, storefront(address) as acknowledged:
        eventually(lambda: acknowledged, what="an acknowledgement")
    assert len(acknowledged) == len(set(acknowledged)) and len(acknowledged) % 20 == 0


def test_an_event_that_is_refused_is_a_failure_of_the_bench() -> None:
    door = Door(pb.EventStatus.CODE_INVALID)
    with served(door) as address, pytest.raises(AssertionError, match="CODE_INVALID"), storefront(address):
        eventually(lambda: door.calls, what="a call")


def test_a_bench_that_ends_early_does_not_wait_for_a_gateway_that_is_gone() -> None:
    with pytest.raises(KeyboardInterrupt), storefront(f"127.0.0.1:{free_ports()}"):
        raise KeyboardInterrupt
