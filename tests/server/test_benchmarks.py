"""The benchmarks run on a real stack and print what they promise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving.peers.recommender import Recommender
from braid.v1.recommendation_pb2 import TIER_FULL
from features.settings import ROOT, Settings
from tests.conftest import NewSettings, StartTriton
from tests.processes import environment
from tests.server.client import RunningGateway, gateway
from tests.server.conftest import copy_of


def measure(name: str, *arguments: str, env: dict[str, str], timeout_s: float) -> tuple[str, dict[str, Any]]:
    """What a benchmark prints, and the figures that it keeps, which are taken away."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, done.stdout + done.stderr
    record = Path(done.stdout.split()[-1])
    figures = json.loads(record.read_text())
    record.unlink()
    return done.stdout, figures


def test_latency_shows_the_three_side_by_side_and_keeps_the_figures(released_shop: RunningGateway) -> None:
    env = environment(released_shop.settings, COLUMNS="200")
    printed, figures = measure("latency", "--calls", "20", env=env, timeout_s=120)
    assert all(name in printed for name in ("empty grpc.aio method", "bare Triton call", "Recommend", "p50", "p99"))
    medians = {name: latency["p50"] for name, latency in figures["latency_ms"].items()}
    parts = [medians[name] for name in ("empty grpc.aio method", "bare Triton call", "Recommend")]
    assert parts == sorted(parts), "nothing is faster than the empty method, and Recommend contains a Triton call"
    assert min(medians.values()) == parts[0]
    assert set(figures["tiers_of_warm_up"]) <= {"TIER_FULL", "TIER_RECENT"}


def test_ingestion_measures_every_way_of_writing_and_keeps_the_figures(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'braid.db'}"
    env = os.environ | {"COLUMNS": "200"}
    printed, figures = measure("ingestion", "--seconds", "1", "--database", url, env=env, timeout_s=120)
    measured = figures["measured"]
    assert [row["way"] for row in measured] == ["single events", "batches of 100", "stream of 100s"]
    assert all(
        row["events_per_s"] > 0 and row["empty_ratio"] > 0 and row["p50_ms"] <= row["p99_ms"] for row in measured
    )
    assert all(row["way"] in printed for row in measured)


def test_overload_finds_saturation_and_shows_what_more_than_that_does(released_shop: RunningGateway) -> None:
    env = environment(released_shop.settings, COLUMNS="200")
    _, figures = measure("overload", "--seconds", "1", env=env, timeout_s=240)
    loads = [*figures["closed"].values(), *figures["open"].values()]
    assert all(load["goodput"] > 0 and load["p50_ms"] <= load["p99_ms"] and load["gateway_bytes"] for load in loads)
    assert list(figures["open"]) == ["1.0", "1.5", "3.0"]
    assert all(load["health_s"] >= 0 for load in figures["open"].values())


@pytest.fixture(scope="module")
def measured_shop(
    trained_shop: Settings, new_settings: NewSettings, start_triton: StartTriton
) -> Iterator[RunningGateway]:
    """A shop of its own: a gateway without features leaves answers that others check. With a gateway that runs, else
    the bench would start the stack, and leave it running."""
    settings = copy_of(trained_shop, new_settings)
    start_triton(settings)
    with gateway(settings) as running_gateway:
        yield running_gateway


def test_serving_shows_the_gateway_beside_its_parts_and_what_each_stage_takes(measured_shop: RunningGateway) -> None:
    env = environment(measured_shop.settings, COLUMNS="200")
    arguments = ("--seconds", "0.5", "--concurrency", "16", "--no-peers")
    printed, figures = measure("serving", *arguments, env=env, timeout_s=240)
    assert all(name in printed for name in ("gateway without features", "bare Feast read", "p99.9", "features", "CPU"))
    loads = {load["name"]: load for load in figures["closed"]}
    assert loads["gateway"]["goodput"] < loads["empty grpc.aio method"]["goodput"]
    assert all(load["failed"] == 0 and load["goodput"] > 0 for load in [*loads.values(), *figures["open"]])
    assert loads["gateway"]["gateway_cpu_ms"] > loads["bare Triton call"]["gateway_cpu_ms"]
    stages = figures["stages"]
    assert {"decode", "features", "inference", "select", "encode"} <= stages.keys()
    assert all(wall > 0 and cpu > 0 for wall, cpu in stages.values())


def test_peers_answer_as_the_gateway_does_alone_and_in_a_batch(measured_shop: RunningGateway) -> None:
    users = [f"user-{number}" for number in range(12)]
    recommender = Recommender(measured_shop.settings)
    together = recommender.recommend(users)
    for user, page in zip(users, together, strict=True):
        answer = measured_shop.client.recommend(user, filter={"allow_age_restricted": True})  # no filter of its own
        assert answer.tier == TIER_FULL
        assert page["item_ids"] == [result.item_id for result in answer.results]
        assert page["scores"] == pytest.approx([result.score for result in answer.results], abs=1e-3)  # time goes on
        assert recommender.recommend([user])[0]["item_ids"] == page["item_ids"]


def test_fuzz_meets_documented_statuses_alone() -> None:
    command = [sys.executable, "-m", "benchmarks.fuzz", "--inputs", "3000"]
    env = os.environ | {"COLUMNS": "200"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "3000 inputs, no undocumented status" in done.stdout
    assert all(
        method in done.stdout for method in ("Recommend ", "WriteEvents", "StreamEvents", "UpsertRules", "GetUser")
    )


def test_chaos_finds_calls_answered_and_nothing_leaking() -> None:
    # too short for 99.9%, and a machine may be busy: the bench itself asks for that, over ten minutes
    _, figures = measure("chaos", "--minutes", "0.4", "--least", "0.95", env=dict(os.environ), timeout_s=280)
    assert "INTERNAL" not in {**figures["codes"], **figures["event_codes"]}
    assert figures["back_s"] and not figures["grown"]
    assert figures["tiers"]["TIER_FULL"] > 0


def test_footprint_asks_for_a_stack_of_make_up(released_shop: RunningGateway) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.footprint"],
        cwd=ROOT,
        env=environment(released_shop.settings),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "was not started by `make up`" in done.stderr
