"""Recommend and Rank at concurrency 1, beside an empty grpc.aio method and a bare Triton call in the same run.

    python -m benchmarks.latency [--calls 2000]

This process is the client; the stack is started where it does not run, and stays up. Every call is for another shopper
of the log. The kinds of call take turns in rounds, so that whatever else the machine does falls on all of them. The
empty method gets and gives as many bytes as Recommend. Prints p50, p95 and p99 in milliseconds and the ratio of the
medians, and keeps them as JSON in benchmarks/results/.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import polars as pl
import typer
import uvloop
from rich.table import Table
from tritonclient.grpc import service_pb2, service_pb2_grpc

from benchmarks import record
from benchmarks.empty_server import METHOD
from braid.v1 import recommendation_pb2 as pb
from braid.v1 import recommendation_pb2_grpc
from deploy.embedded import stack
from features import schema
from features.releases.release import ReleaseFiles, read_release
from features.settings import ROOT, Settings, load_settings
from features.terminal import console
from tests.processes import free_ports

TARGET_MS = 6.0
ROUNDS = 10
WARM_UP_CALLS = 100
EMPTY, TRITON, RECOMMEND = "empty grpc.aio method", "bare Triton call", "Recommend"
RANKED_ITEMS = 500
RANK, EXPLAINED = f"Rank of {RANKED_ITEMS} items", "Recommend with explain"
Call = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, samples_s: list[float]) -> Latency:
        """Percentiles of samples in seconds."""
        return cls(*(float(value) for value in np.percentile(np.array(samples_s) * 1000, [50, 95, 99])))


class BenchmarkError(Exception):
    """The measurement cannot be made; the message says what to do."""


def main(calls: int = typer.Option(2_000, min=ROUNDS, help="Calls of each kind, after warming up.")) -> None:
    """Latency of one Recommend at concurrency 1, beside what it is made of."""
    settings = load_settings()
    try:
        ensure_up(settings)
        measured, figures = uvloop.run(measure(settings, calls))
    except (BenchmarkError, stack.StackError) as error:
        sys.exit(str(error))
    show(measured)
    console.print(f"{record.write('latency', figures)}")


def ensure_up(settings: Settings) -> None:
    """Starts the stack where it does not serve."""
    if stack.health(settings) == "SERVING":
        return
    stack.start(settings)
    for change in stack.wait_until_serving(settings, within_s=120):
        console.print(change)


async def measure(settings: Settings, calls: int) -> tuple[dict[str, Latency], dict[str, Any]]:
    """Latencies by name, and everything that goes into the record."""
    async with (
        grpc.aio.insecure_channel(settings.gateway_address) as gateway,
        grpc.aio.insecure_channel(settings.triton_address) as triton,
    ):
        stub = recommendation_pb2_grpc.RecommendationServiceStub(gateway)
        recommend = stub.Recommend
        requests = endless_requests(settings)
        samples = [await recommend(next(requests), timeout=10) for _ in range(WARM_UP_CALLS)]
        releases = {answer.release for answer in samples}
        if 0 in releases or len(releases) != 1:
            raise BenchmarkError("The gateway answers without a model: `make demo` trains and publishes one")
        files = read_release(settings.model_repository / schema.FUSION_MODEL / str(releases.pop()))
        bare = triton_call(files, triton)
        to_rank = files.items["item_id"].sample(min(RANKED_ITEMS, files.items.height), seed=0).to_list()
        sent = len(next(requests).SerializeToString())
        received = int(np.median([len(answer.SerializeToString()) for answer in samples]))
        with empty_server(received) as port:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as empty:
                message = bytes(sent)
                nothing = empty.unary_unary(METHOD, request_serializer=None, response_deserializer=None)
                await nothing(message, wait_for_ready=True, timeout=20)
                kinds: dict[str, Call] = {
                    EMPTY: lambda: nothing(message),
                    TRITON: bare,
                    RECOMMEND: lambda: recommend(next(requests), timeout=10),
                    RANK: lambda: stub.Rank(
                        pb.RankRequest(user_id=next(requests).user_id, item_ids=to_rank), timeout=10
                    ),
                    EXPLAINED: lambda: recommend(
                        pb.RecommendRequest(user_id=next(requests).user_id, explain=True), timeout=10
                    ),
                }
                seconds = await take_turns(kinds, calls)
    measured = {name: Latency.of(times) for name, times in seconds.items()}
    tiers = {pb.Tier.Name(answer.tier): 0 for answer in samples}
    for answer in samples:
        tiers[pb.Tier.Name(answer.tier)] += 1
    figures = {
        "calls": calls,
        "request_bytes": sent,
        "response_bytes": received,
        "tiers_of_warm_up": tiers,
        "latency_ms": {name: {"p50": it.p50, "p95": it.p95, "p99": it.p99} for name, it in measured.items()},
    }
    return measured, figures


async def take_turns(kinds: dict[str, Call], calls: int) -> dict[str, list[float]]:
    """Seconds of each call of each kind."""
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for call in kinds.values():
        for _ in range(WARM_UP_CALLS):
            await call()
    for _ in range(ROUNDS):
        for name, call in kinds.items():
            for _ in range(calls // ROUNDS):
                started = time.perf_counter()
                await call()
                seconds[name].append(time.perf_counter() - started)
    return seconds


def endless_requests(settings: Settings) -> Iterator[pb.RecommendRequest]:
    """Requests for the log's signed-in shoppers, in random order, each before any a second time."""
    path = settings.offline / "events.parquet"
    if not path.exists():
        raise BenchmarkError(f"{path} is missing: `make demo` or `python -m features build` writes it")
    shoppers = pl.scan_parquet(path).select("shopper").unique().collect()["shopper"]
    users = [shopper[2:] for shopper in shoppers.sort() if shopper.startswith("u:")]
    if not users:
        raise BenchmarkError("The log holds no event of a signed-in user")
    random.Random(0).shuffle(users)
    while True:
        for user in users:
            yield pb.RecommendRequest(user_id=user, page_size=10, placement="benchmark")


def triton_call(files: ReleaseFiles, channel: grpc.aio.Channel) -> Call:
    """A call of the fusion model as the gateway makes it for one shopper with full windows."""
    request = triton_request(files)
    infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
    return lambda: infer(request, timeout=10)


def triton_request(files: ReleaseFiles, seed: int = 0) -> service_pb2.ModelInferRequest:
    """The message of `triton_call`."""
    generator = np.random.default_rng(seed)
    sizes = {"long_interest": files.manifest.interest_dim, "allowed": 1, "candidates": 1}
    request = service_pb2.ModelInferRequest(model_name=schema.FUSION_MODEL, model_version=str(files.manifest.release))
    for tensor in schema.FUSION_INPUTS:
        shape = [1, *(sizes[tensor.name] if size == -1 else size for size in tensor.dims)]
        if tensor.name in ("recent_items", "own_items"):
            values: npt.NDArray[np.generic] = generator.integers(0, files.manifest.item_count, shape, dtype=np.int32)
        elif tensor.dtype == "FP32":
            values = generator.random(shape, dtype=np.float32)
        else:
            fill = {"recent_types": 1, "candidates": schema.PADDING}.get(tensor.name, 0)
            values = np.full(shape, fill, np.uint8 if tensor.dtype == "UINT8" else np.int32)
        request.inputs.add(name=tensor.name, datatype=tensor.dtype, shape=shape)
        request.raw_input_contents.append(values.tobytes())
    return request


@contextmanager
def empty_server(answer_bytes: int) -> Iterator[int]:
    """The empty method in a process of its own; yields its port."""
    port = free_ports()
    command = [sys.executable, "-m", "benchmarks.empty_server", str(port), str(answer_bytes)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            yield port
        finally:
            process.terminate()


def show(measured: dict[str, Latency]) -> None:
    """The table."""
    table = Table("milliseconds, concurrency 1", "p50", "p95", "p99", f"p50 / {EMPTY}")
    for name, latency in measured.items():
        ratio = latency.p50 / measured[EMPTY].p50
        table.add_row(name, f"{latency.p50:.2f}", f"{latency.p95:.2f}", f"{latency.p99:.2f}", f"{ratio:.1f}")
    console.print(table)
    median = measured[RECOMMEND].p50
    verdict = "within" if median <= TARGET_MS else "above"
    console.print(f"Recommend's median is {verdict} the target of {TARGET_MS} ms: {median:.2f} ms.")


if __name__ == "__main__":
    typer.run(main)
