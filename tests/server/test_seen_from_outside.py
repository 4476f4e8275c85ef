"""What a gateway shows of itself: every metric with a value, and logs that name calls and nobody."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from braid.v1 import event_pb2 as event
from braid.v1 import recommendation_pb2 as rec
from braid.v1 import user_pb2 as user
from deploy.dashboard import DASHBOARD
from deploy.embedded.triton import ports
from features.schema import RECENT_EVENTS
from features.settings import ROOT
from tests.conditions import eventually
from tests.processes import free_ports
from tests.server.client import RunningGateway, gateway, new_event, refusal

USER, SESSION, EVENT = "user-5", "session-of-somebody", "event-of-somebody"
REQUEST_ID = "the-storefront-says-so"
OUTRUN: dict[str, Any] = {
    "recent_events": [new_event(event.EVENT_TYPE_VIEW, "garden-01") for _ in range(RECENT_EVENTS)],
    "context": rec.Context(page_item_id="garden-02"),
}
"""One event more than the window covers, so that a long-term vector is left out."""


class Watched:
    """A gateway that logs every call, and what its metrics page says."""

    def __init__(self, running: RunningGateway, address: str) -> None:
        self.warm_up_reads = 0.0
        """Shoppers whose features were read before the first call."""
        self.client = running.client
        self.running = running
        self._address = address

    @property
    def url(self) -> str:
        """Of the metrics page."""
        return f"http://{self._address}/metrics"

    def families(self) -> dict[str, Metric]:
        """The metrics page."""
        with urllib.request.urlopen(self.url, timeout=5) as page:
            return {family.name: family for family in text_string_to_metric_families(page.read().decode())}

    def value(self, name: str, **labels: str) -> float:
        """A sample, or the sum of several; 0 where there is none."""
        samples = (sample for family in self.families().values() for sample in family.samples)
        return sum(
            sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()
        )


@pytest.fixture(scope="module")
def watched(released_shop: RunningGateway) -> Iterator[Watched]:
    """A second gateway on `released_shop`, after calls that succeed and calls that fail."""
    port = free_ports(2)
    address = f"127.0.0.1:{port + 1}"
    settings = released_shop.settings.model_copy(update={"gateway_address": f"127.0.0.1:{port}"})
    with gateway(settings, metrics_address=address, log_level="DEBUG") as running:
        client, seen = running.client, Watched(running, address)
        seen.warm_up_reads = seen.value("braid_stage_seconds_count", stage="features")
        recent = [new_event(event.EVENT_TYPE_VIEW, "garden-01", event_id=EVENT)]
        for _ in range(5):
            client.recommend(USER, session_id=SESSION, recent_events=recent, explain=True)
        client.recommendations.Rank(rec.RankRequest(user_id=USER, item_ids=["garden-01"], **OUTRUN), timeout=10)
        client.recommendations.GetInterests(rec.GetInterestsRequest(user_id=USER, session_id=SESSION), timeout=10)
        client.write(new_event(event.EVENT_TYPE_VIEW, "garden-01", user_id=USER, session_id=SESSION, event_id=EVENT))
        client.users.UpsertUsers(user.UpsertUsersRequest(users=[user.User(user_id=USER, age=41)]), timeout=10)
        refusal(lambda: client.recommend(USER, session_id=SESSION, page_size=1_000))
        refusal(lambda: client.recommendations.Recommend(rec.RecommendRequest(user_id=USER), timeout=1e-6))
        refusal(lambda: client.recommendations.SimilarItems(rec.SimilarItemsRequest(item_id="nowhere"), timeout=10))
        client.recommendations.Recommend(
            rec.RecommendRequest(user_id=USER), timeout=10, metadata=[("x-request-id", REQUEST_ID)]
        )
        yield seen


def test_calls_are_counted_by_method_and_status_and_timed(watched: Watched) -> None:
    assert watched.value("braid_calls_total", method="Recommend", code="OK") == 6
    assert watched.value("braid_calls_total", method="Recommend", code="INVALID_ARGUMENT") == 1
    assert watched.value("braid_calls_total", method="SimilarItems", code="NOT_FOUND") == 1
    assert watched.value("braid_call_seconds_count", method="Recommend") >= 7
    assert 0 < watched.value("braid_call_seconds_sum", method="Rank") < 10
    assert watched.value("braid_calls_under_way") == 0


def test_answers_are_counted_by_tier_and_release(watched: Watched) -> None:
    full = watched.value("braid_answers_total", tier="FULL", release="1")
    assert full >= 6
    assert watched.value("braid_answers_total") == 7
    assert watched.value("braid_live_release") == 1
    assert watched.value("braid_stale_interests_total") == 1


def test_each_stage_and_each_line_is_timed(watched: Watched) -> None:
    stages = {stage: watched.value("braid_stage_seconds_count", stage=stage) for stage in (
        "decode", "features", "inference", "select", "encode")}  # fmt: skip
    assert stages["decode"] == 7 and stages["select"] == stages["encode"] == 6
    assert stages["features"] - watched.warm_up_reads == 8 and stages["inference"] >= 13  # reasons ask the model again
    asked = watched.value("braid_wait_seconds_count", line="model")
    assert watched.value("braid_batch_size_sum", line="model") == asked
    assert watched.value("braid_batch_seconds_count", line="event-log") == 1


def test_everything_that_is_drawn_is_on_the_page(watched: Watched, released_shop: RunningGateway) -> None:
    host, port = ports(released_shop.settings)["metrics"]
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=5) as page:
        shown = set(re.findall(r"^(nv_\w+)\{", page.read().decode(), re.MULTILINE))
    shown |= {sample.name for family in watched.families().values() for sample in family.samples}
    drawn = set(re.findall(r"\b(?:braid|nv|process)_\w+", DASHBOARD.read_text()))
    assert drawn <= shown


def test_a_container_knows_from_the_page_that_the_gateway_serves(watched: Watched) -> None:
    command = [sys.executable, str(ROOT / "deploy/container/healthy.py"), watched.url]
    assert subprocess.run(command, timeout=30).returncode == 0


def test_the_lag_of_the_features_is_seen(watched: Watched) -> None:
    assert watched.value("braid_catalogue_read_time_seconds") > 1.6e9
    eventually(lambda: watched.value("braid_stream_lag_seconds") < 60, what="a stream worker that keeps up")
    assert watched.value("braid_vector_lag_seconds") >= 0


def test_log_lines_name_the_call_and_nobody(watched: Watched) -> None:
    lines = [json.loads(line) for line in watched.running.log.splitlines() if line.startswith("{")]
    of_calls = [line for line in lines if line["message"].startswith("method=")]
    assert {
        "method=Recommend code=INVALID_ARGUMENT error=InvalidRequest",
        "method=SimilarItems code=NOT_FOUND error=NotFound",
    } <= {line["message"] for line in of_calls}
    assert all(line["request_id"] for line in of_calls)
    assert REQUEST_ID in {line["request_id"] for line in of_calls}
    for name in (USER, SESSION, EVENT):
        assert name not in watched.running.log
