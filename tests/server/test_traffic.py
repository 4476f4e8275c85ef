"""Traffic on real gateways and a real Triton: arms, a shadow, canaries that grow or are rolled back by themselves."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import tritonclient.grpc as triton_client

from braid.v1 import event_pb2
from braid.v1 import recommendation_pb2 as rec
from braid.v1 import release_pb2 as pb
from features.database.engine import open_database
from features.online.materialize import materialize
from features.schema import FUSION_MODEL
from features.settings import Settings
from features.traffic.shadow_statistics import Disagreement, disagreements
from features.traffic.split import Arm, arm_at, point_of
from tests.conditions import eventually
from tests.conftest import NewSettings, StartTriton
from tests.processes import free_ports
from tests.server.client import Client, RunningGateway, assert_refused, gateway, new_event
from tests.server.conftest import copy_of
from tests.server.prebuilt import copy_release
from tests.server.shop import SHOPPERS

PERSON: dict[str, Any] = {"who": "a person", "why": "a test"}
USERS = [f"user-{number}" for number in range(SHOPPERS)]
CLICK = event_pb2.EVENT_TYPE_CLICK
GOOD, BAD, UNLOADED = 2, 3, 4
"""Copies of release 1, with and without long-term vectors, and one that is not held ready."""


@pytest.fixture(scope="module")
def metrics_address() -> str:
    """Of the gateway of `shop`."""
    return f"127.0.0.1:{free_ports()}"


@pytest.fixture(scope="module")
def shop(
    trained_shop: Settings, new_settings: NewSettings, start_triton: StartTriton, metrics_address: str
) -> Iterator[RunningGateway]:
    """A gateway with release 1 live and two more held ready."""
    settings = copy_of(trained_shop, new_settings)
    copy_release(settings, GOOD, BAD, UNLOADED)
    materialize(settings, GOOD, settings.model_repository / FUSION_MODEL / str(GOOD))
    start_triton(settings)
    with gateway(settings, metrics_address=metrics_address) as on_it:
        for release in (GOOD, BAD):
            on_it.client.releases.LoadRelease(pb.LoadReleaseRequest(release=release, **PERSON), timeout=60)
        yield on_it


def set_traffic(shop: RunningGateway, **split: Any) -> pb.Split:
    request = pb.SetTrafficRequest(split=pb.Split(**split), **PERSON)
    return shop.client.releases.SetTraffic(request, timeout=30).split


def arms(*weights: tuple[int, float]) -> list[pb.Split.Arm]:
    return [pb.Split.Arm(release=release, weight=weight) for release, weight in weights]


def served(client: Client, placement: str) -> list[int]:
    """The release that answered each user."""
    return [client.recommend(user, placement=placement).release for user in USERS]


def not_possible(call: Callable[[], object]) -> str:
    with pytest.raises(grpc.RpcError) as refused:
        call()
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION, refused.value
    return str(refused.value.details())


def test_a_user_stays_in_one_arm_in_every_process_and_other_placements_are_the_live_releases(
    shop: RunningGateway,
) -> None:
    split = set_traffic(shop, placement="home", experiment="halves", arms=arms((1, 50), (GOOD, 50)))
    assert split.start_time.seconds > 0 and [arm.release for arm in split.arms] == [1, GOOD]
    expected = [arm_at(point_of("halves", f"u:{user}"), (Arm(1, 50), Arm(GOOD, 50))) for user in USERS]
    assert set(expected) == {1, GOOD}
    assert served(shop.client, "home") == expected
    assert set(served(shop.client, "basket")) == {1}
    address = f"127.0.0.1:{free_ports()}"
    with gateway(shop.settings.model_copy(update={"gateway_address": address})) as second:
        eventually(lambda: served(second.client, "home") == expected, what="the arms of a process that has just begun")
    set_traffic(shop, placement="home")
    assert set(served(shop.client, "home")) == {1}
    changes = shop.client.releases.GetTraffic(pb.GetTrafficRequest()).changes
    assert [(change.outcome, change.who) for change in changes][-2:] == [("set", "a person"), ("ended", "a person")]


def test_what_cannot_be_split_is_refused_with_what_to_do(shop: RunningGateway) -> None:
    def split(**fields: Any) -> Callable[[], object]:
        return lambda: set_traffic(shop, **{"placement": "refused", "experiment": "e"} | fields)

    assert_refused(split(arms=arms((1, 50), (GOOD, 49))), "split.arms")
    assert_refused(split(experiment="", arms=arms((1, 50), (GOOD, 50))), "split.experiment")
    assert_refused(split(canary=pb.Split.Canary(release=GOOD, steps=[5, 1])), "split.canary.steps")
    with pytest.raises(grpc.RpcError) as unknown:
        split(arms=arms((1, 50), (99, 50)))()
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
    assert f"load {UNLOADED}" in not_possible(split(arms=arms((1, 50), (UNLOADED, 50))))
    assert "live already" in not_possible(split(canary=pb.Split.Canary(release=1)))
    assert "no split" in not_possible(split())
    assert_refused(lambda: shop.client.releases.SetTraffic(pb.SetTrafficRequest(**PERSON), timeout=30), "split")
    assert not shop.client.releases.GetTraffic(pb.GetTrafficRequest()).splits


def shown_at(address: str) -> Callable[[str], float]:
    """The gateway's page of this moment: a sample by its name and labels."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as page:
        lines = [line.rpartition(" ") for line in page.read().decode().splitlines()]
    found = {name: value for name, _, value in lines}
    return lambda name: float(found[name])


def hold_in_triton(settings: Settings, *releases: int) -> None:
    """Has Triton hold these alone, behind the gateway's back."""
    with triton_client.InferenceServerClient(settings.triton_address) as triton:
        config = triton.get_model_config(FUSION_MODEL, as_json=True)["config"]
        versions = {"version_policy": {"specific": {"versions": [str(release) for release in releases]}}}
        triton.load_model(FUSION_MODEL, config=json.dumps(config | versions))


def test_a_shadow_is_compared_off_the_requests_path_and_a_broken_one_costs_nothing_and_is_loaded_again(
    shop: RunningGateway, metrics_address: str
) -> None:
    engine = open_database(shop.settings.log_url)

    def found() -> Disagreement:
        return disagreements(engine, ["beside"]).get(("beside", GOOD, 1), Disagreement())

    set_traffic(shop, placement="shadowed", experiment="beside", shadow_release=GOOD)

    def asked_until(condition: Callable[[], bool]) -> bool:
        answers = [shop.client.recommend(user, placement="shadowed") for user in USERS[:20]]
        assert {(answer.release, answer.tier) for answer in answers} == {(1, rec.TIER_FULL)}
        return condition()

    eventually(lambda: asked_until(lambda: found().compared > 20), within_s=30, what="pages that were compared")
    same = found()
    assert same.overlap == pytest.approx(same.compared) and same.correlation == pytest.approx(same.correlated)
    assert same.failed == 0 and same.score_difference < 1e-3 * same.scored and same.shadow_ms > 0
    shown = shown_at(metrics_address)
    assert shown('braid_shadow_copies_total{outcome="compared"}') >= same.compared
    assert shown("braid_shadow_overlap_sum") == shown("braid_shadow_overlap_count") >= same.compared
    assert 0 < shown("braid_shadow_seconds_sum") < shown("braid_shadow_seconds_count")
    hold_in_triton(shop.settings, 1)
    eventually(lambda: asked_until(lambda: found().failed > 0), within_s=30, what="a shadow that does not answer")
    assert shown_at(metrics_address)('braid_shadow_copies_total{outcome="failed"}') > 0
    began_s = time.monotonic()
    asked_until(lambda: True)
    assert time.monotonic() - began_s < 5
    compared = found().compared
    eventually(lambda: asked_until(lambda: found().compared > compared), within_s=60, what="the shadow, loaded again")
    set_traffic(shop, placement="shadowed")


def test_a_shadow_leaves_out_what_the_answer_left_out_and_not_what_it_showed(shop: RunningGateway) -> None:
    engine = open_database(shop.settings.log_url)
    set_traffic(shop, placement="fresh", experiment="fresh beside", shadow_release=GOOD)
    today = rec.Filter(exclude_shown_today=True)

    def compared() -> Disagreement | None:
        for user in USERS[:5]:
            shop.client.recommend(user, placement="fresh", page_size=3, filter=today)
        found = disagreements(engine, ["fresh beside"]).get(("fresh beside", GOOD, 1))
        return found if found and found.compared > 5 else None

    same = eventually(compared, within_s=30, what="pages that were compared")
    assert same is not None and same.overlap == pytest.approx(same.compared)
    set_traffic(shop, placement="fresh")


def test_where_an_arms_model_does_not_answer_the_live_release_tells_interests_too(shop: RunningGateway) -> None:
    def teller(user_id: str) -> int:
        request = rec.GetInterestsRequest(user_id=user_id)
        return shop.client.recommendations.GetInterests(request, timeout=10).release

    set_traffic(shop, experiment="halves", arms=arms((1, 50), (GOOD, 50)))
    user_id = next(user for user in USERS if teller(user) == GOOD)
    hold_in_triton(shop.settings, 1)
    told = []

    def told_by(release: int) -> bool:
        told.append(teller(user_id))
        return told[-1] == release

    eventually(lambda: told_by(1), within_s=30, what="the live release in the arm's stead")
    eventually(lambda: told_by(GOOD), within_s=60, what="the arm, loaded again")
    assert set(told) == {1, GOOD}
    set_traffic(shop)


def canary(release: int, steps: list[float], step_minutes: float) -> pb.Split.Canary:
    rails = pb.Guardrails(
        least_answers=30, max_p99_ratio=100, alpha=0.01, max_error_rise=0.4, max_lower_tier_rise=0.4
    )  # a machine under load is slow now and then
    return pb.Split.Canary(release=release, steps=steps, step_minutes=step_minutes, guardrails=rails)


def test_a_canary_that_answers_worse_is_rolled_back_by_itself_and_says_why(shop: RunningGateway) -> None:
    set_traffic(shop, placement="canary", experiment="bad", canary=canary(BAD, [50], 60))

    def rolled_back() -> bool:
        served(shop.client, "canary")
        return not shop.client.releases.GetTraffic(pb.GetTrafficRequest()).splits

    eventually(rolled_back, within_s=60, what="the rollback")
    release = shop.client.releases.GetRelease(pb.GetReleaseRequest(release=BAD)).release
    assert release.state == pb.RELEASE_STATE_FAILED and "lower tiers" in release.changes[-1].why
    eventually(lambda: set(served(shop.client, "canary")) == {1}, what="the live release alone")
    change = shop.client.releases.GetTraffic(pb.GetTrafficRequest()).changes[-1]
    assert (change.outcome, change.who) == ("rolled_back", "gateway") and "lower tiers" in change.why


def test_a_canary_that_is_as_good_grows_and_goes_live(shop: RunningGateway) -> None:
    set_traffic(shop, placement="canary", experiment="good", canary=canary(GOOD, [40, 60], 0.01))

    def live() -> bool:
        clicks = []
        for user in USERS:
            answer = shop.client.recommend(user, placement="canary")
            token = answer.attribution_token
            clicks.append(new_event(CLICK, answer.results[0].item_id, user_id=user, attribution_token=token))
        shop.client.write(*clicks)
        return set(served(shop.client, "elsewhere")) == {GOOD}

    eventually(live, within_s=90, what="the canary's promotion")
    outcomes = [
        change.outcome
        for change in shop.client.releases.GetTraffic(pb.GetTrafficRequest()).changes
        if change.experiment == "good"
    ]
    assert outcomes == ["set", "grown", "promoted"]
