"""A real gRPC client, and gateways as real processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from braid.v1 import (
    catalog_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    placement_pb2_grpc,
    recommendation_pb2,
    recommendation_pb2_grpc,
    release_pb2_grpc,
    user_pb2_grpc,
)
from features.settings import Settings
from tests.processes import environment, running, tail, until_up

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Client:
    """Stubs of every service on one channel."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        if credentials is None:
            self.channel = grpc.insecure_channel(address)
        else:
            self.channel = grpc.secure_channel(address, credentials, [("grpc.use_local_subchannel_pool", 1)])
        self.recommendations = recommendation_pb2_grpc.RecommendationServiceStub(self.channel)
        self.events = event_pb2_grpc.EventServiceStub(self.channel)
        self.catalog = catalog_pb2_grpc.CatalogServiceStub(self.channel)
        self.placements = placement_pb2_grpc.PlacementServiceStub(self.channel)
        self.releases = release_pb2_grpc.ReleaseServiceStub(self.channel)
        self.users = user_pb2_grpc.UserServiceStub(self.channel)
        self._health = health_pb2_grpc.HealthStub(self.channel)

    def health(self, service: str = "") -> int:
        """The status of one service, or of the whole process."""
        status: int = self._health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status
        return status

    def recommend(self, user_id: str = "", **fields: Any) -> recommendation_pb2.RecommendResponse:
        """One call of Recommend."""
        request = recommendation_pb2.RecommendRequest(user_id=user_id, **fields)
        return self.recommendations.Recommend(request, timeout=10)

    def write(self, *events: event_pb2.Event) -> list[int]:
        """Writes events and returns their codes."""
        response = self.events.WriteEvents(event_pb2.WriteEventsRequest(events=events), timeout=10)
        return [status.code for status in response.statuses]


@dataclass(frozen=True)
class RunningGateway:
    """A gateway process and a client of it."""

    process: subprocess.Popen[bytes]
    client: Client
    settings: Settings

    @property
    def log(self) -> str:
        """What it has logged."""
        return tail(self.settings.logs / "gateway.log", 10_000)


@contextmanager
def gateway(
    settings: Settings, *, wait: bool = True, caller: Client | None = None, **variables: str
) -> Iterator[RunningGateway]:
    """`python -m server` on a shop; `wait` until it serves. `variables` are BRAID_GATEWAY_ ones, in lower case.

    `caller` is for a gateway that does not take everybody. Where the test fails, the logs are printed.

    It explores only where `exploration_rate` is among them: else a page is the model's. It stops at once unless
    `notice_s` is among them.
    """
    variables = {"exploration_rate": "0", "notice_s": "0", **variables}
    own = {f"BRAID_GATEWAY_{name.upper()}": value for name, value in variables.items()}
    log = settings.logs / "gateway.log"
    with running([sys.executable, "-m", "server"], log, env=environment(settings, **own)) as process:
        client = caller or Client(settings.gateway_address)

        def answers() -> bool:
            return client.health() == SERVING if wait else client.health() in (SERVING, NOT_SERVING)

        until_up(process, answers, log, what="the gateway")
        with client.channel:
            try:
                yield RunningGateway(process, client, settings)
            except BaseException:
                print(f"the gateway's log:\n{tail(log)}\nTriton's log:\n{tail(settings.logs / 'triton.log')}")
                raise


def new_event(kind: int, item_id: str = "", **fields: Any) -> event_pb2.Event:
    """An event that happens now; keywords overwrite."""
    values: dict[str, Any] = {"event_id": uuid4().hex, "type": kind, "item_id": item_id} | fields
    event = event_pb2.Event(**values)
    if "event_time" not in fields:
        event.event_time.GetCurrentTime()
    return event


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, dict[str, str]]:
    """The status of a call that fails, and field to description of its BadRequest."""
    try:
        call()
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        details = error_details_pb2.BadRequest()
        for detail in status.details if status else ():
            if detail.Is(details.DESCRIPTOR):
                detail.Unpack(details)
        return error.code(), {violation.field: violation.description for violation in details.field_violations}
    raise AssertionError("the call was answered")


def ids(results: Sequence[Any]) -> list[str]:
    """The item ids of results."""
    return [result.item_id for result in results]


def letters(count: int) -> str:
    """A text at or beyond a limit, which counts characters, not bytes."""
    return "é" * count


def in_seconds(seconds: int) -> Timestamp:
    """A time ahead of now."""
    now = Timestamp()
    now.GetCurrentTime()
    return Timestamp(seconds=now.seconds + seconds)


def assert_refused(call: Callable[[], object], field: str) -> None:
    """INVALID_ARGUMENT that names the field and says more than that."""
    code, fields = refusal(call)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert field in fields, fields
    assert len(fields[field]) > 5
