"""What is driven: the gateway, with and without its features, and the parts that it is made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import grpc
import numpy as np
import psutil

from benchmarks.empty_server import METHOD
from benchmarks.latency import BenchmarkError, Call, empty_server, triton_request
from benchmarks.offered_load import RECOMMEND, Target
from braid.v1 import event_pb2, recommendation_pb2_grpc
from braid.v1 import recommendation_pb2 as pb
from features import schema, store
from features.releases.release import ReleaseFiles, read_release
from features.schema import shopper_key
from features.settings import Settings

EMPTY, TRITON, FEAST = "empty grpc.aio method", "bare Triton call", "bare Feast read"
GATEWAY, BARE_GATEWAY = "gateway", "gateway without features"
INFER = "/inference.GRPCInferenceService/ModelInfer"
SENT_EVENTS = 10
"""Events that a request brings along where it is not to read any."""
MESSAGES = 64
"""Different calls of Triton."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """By name, and what else a run needs to know of the shop. `release` is the one that answers."""

    loads: dict[str, Target]
    release: ReleaseFiles
    users: Sequence[str]
    request_bytes: int
    response_bytes: int


@contextmanager
def targets(settings: Settings, featureless: Settings, users: Sequence[str]) -> Iterator[Targets]:
    """Targets on two gateways of a shop and its Triton; the empty method is served meanwhile."""
    address = settings.gateway_address
    asked = [pb.RecommendRequest(user_id=user, page_size=10, placement="benchmark") for user in users]
    with grpc.insecure_channel(address) as channel:
        recommend = recommendation_pb2_grpc.RecommendationServiceStub(channel).Recommend
        answers = [recommend(request, timeout=10) for request in asked[:200]]
    releases = {answer.release for answer in answers} - {0}
    if len(releases) != 1:
        raise BenchmarkError("The gateway answers without a model: `make demo` trains and publishes one")
    files = read_release(settings.model_repository / schema.FUSION_MODEL / str(releases.pop()))
    sent = max(len(request.SerializeToString()) for request in asked)
    received = int(np.median([answer.ByteSize() for answer in answers]))
    inferences = [triton_request(files, seed).SerializeToString() for seed in range(MESSAGES)]
    told = [_with_events(request, files, seed).SerializeToString() for seed, request in enumerate(asked)]
    with empty_server(received) as port:
        yield Targets(
            loads={
                EMPTY: Target.of(f"127.0.0.1:{port}", METHOD, [bytes(sent)] * 2),
                TRITON: Target.of(settings.triton_address, INFER, inferences),
                BARE_GATEWAY: Target.of(featureless.gateway_address, RECOMMEND, told),
                GATEWAY: Target.recommend(address, users),
            },
            release=files,
            users=users,
            request_bytes=sent,
            response_bytes=received,
        )


@contextmanager
def bare_feast_read(settings: Settings, found: Targets) -> Iterator[Call]:
    """Feast's own online read of all that the release's service has of one user, each time another."""
    with store.opened(settings) as feast:
        service = feast.get_feature_service(schema.feature_service(found.release.manifest.release))
        users = itertools.cycle(found.users)

        async def read() -> object:
            row = {schema.SHOPPER: shopper_key(next(users), None)}
            return feast.get_online_features(features=service, entity_rows=[row], full_feature_names=True)

        yield read


def process_of(address: str) -> psutil.Process:
    """Who listens there."""
    port = int(address.rpartition(":")[2])
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            return psutil.Process(connection.pid)
    raise BenchmarkError(f"nobody of this user listens at {address}")


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time so far of a process and all below it, those that have ended meanwhile among them.

    Raises:
        psutil.NoSuchProcess: it has ended itself.
    """
    total = 0.0
    for member in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _with_events(asked: pb.RecommendRequest, files: ReleaseFiles, seed: int) -> pb.RecommendRequest:
    """The same of somebody who has just looked at some items."""
    rows = np.random.default_rng(seed).integers(0, files.items.height, SENT_EVENTS).tolist()
    request = pb.RecommendRequest()
    request.CopyFrom(asked)
    for number, row in enumerate(rows):
        event = request.recent_events.add(
            event_id=f"{seed}-{number}", type=event_pb2.EVENT_TYPE_VIEW, item_id=files.items["item_id"][row]
        )
        event.event_time.GetCurrentTime()
    return request
