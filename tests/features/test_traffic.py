"""Splits: who falls into which arm, what is refused, and what the database keeps, on SQLite and PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from features.releases.release import ReleaseError
from features.releases.release_table import ReleaseTable
from features.settings import ROOT
from features.traffic.split import (
    Arm,
    CanaryPlan,
    Guardrails,
    TrafficError,
    TrafficNotPossible,
    Wanted,
    arm_at,
    canary_arms,
    check,
    point_of,
)
from features.traffic.traffic_table import TrafficTable
from tests.features.test_releases import held_ready

HALVES = (Arm(1, 50), Arm(2, 50))


@pytest.fixture
def releases(engine: Engine) -> ReleaseTable:
    """Release 1 is live, 2 and 3 are held ready, 4 is not."""
    return held_ready(engine)


@pytest.fixture
def traffic(engine: Engine, releases: ReleaseTable) -> TrafficTable:
    return TrafficTable(engine)


def test_ten_thousand_shoppers_fall_into_arms_by_their_weights_and_anew_for_another_experiment() -> None:
    arms = (Arm(1, 60), Arm(2, 30), Arm(3, 10))
    shoppers = [f"u:{number}" for number in range(10_000)]
    found = [arm_at(point_of("first", shopper), arms) for shopper in shoppers]
    for arm in arms:
        share, deviation = found.count(arm.release) / 10_000, (arm.weight * (100 - arm.weight)) ** 0.5 / 10_000
        assert abs(share - arm.weight / 100) < 4 * deviation
    other = [arm_at(point_of("second", shopper), arms) for shopper in shoppers]
    both = sum(a == b == 3 for a, b in zip(found, other, strict=True))
    assert 60 <= both <= 140, "independent experiments share a hundredth of ten thousand"


def test_another_process_finds_the_same_arms() -> None:
    program = "from features.traffic.split import point_of; print([point_of('e', f'u:{n}') for n in range(50)])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([point_of("e", f"u:{number}") for number in range(50)])


def test_a_growing_canary_keeps_its_shoppers() -> None:
    plan = CanaryPlan(release=2, steps=(1, 5, 25, 50))
    points = [point_of("canary", f"s:{number}") for number in range(5_000)]
    members = [{p for p in points if arm_at(p, canary_arms(1, plan, step)) == 2} for step in range(4)]
    assert all(smaller < larger for smaller, larger in zip(members, members[1:], strict=False))


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (Wanted(experiment="", arms=HALVES), "experiment"),
        (Wanted(experiment="e"), "arms"),
        (Wanted(experiment="e", arms=HALVES[:1]), "arms"),
        (Wanted(experiment="e", arms=(Arm(1, 50), Arm(1, 50))), "arms"),
        (Wanted(experiment="e", arms=(Arm(1, 50), Arm(2, 49))), "arms"),
        (Wanted(experiment="e", arms=(Arm(1, 100), Arm(2, 0))), "arms[0].weight"),
        (Wanted(experiment="e", arms=HALVES, shadow=2), "shadow_release"),
        (Wanted(experiment="e", arms=HALVES, canary=CanaryPlan(release=3)), "canary"),
        (Wanted(experiment="e", canary=CanaryPlan(release=2, steps=(5, 1))), "canary.steps"),
        (
            Wanted(experiment="e", canary=CanaryPlan(release=2, guardrails=Guardrails(alpha=0.9))),
            "canary.guardrails.alpha",
        ),
    ],
)
def test_what_is_not_well_formed_is_refused_by_its_field(wanted: Wanted, field: str) -> None:
    with pytest.raises(TrafficError) as refused:
        check(wanted)
    assert refused.value.field == field and len(refused.value.message) > 10


def test_releases_that_are_not_there_or_not_held_ready_are_refused(traffic: TrafficTable) -> None:
    for release, error, word in ((9, ReleaseError, "no release 9"), (4, TrafficNotPossible, "release load 4")):
        with pytest.raises(error, match=word):
            traffic.set(Wanted(experiment="e", arms=(Arm(1, 50), Arm(release, 50))), "anna", "to see")
    with pytest.raises(TrafficNotPossible, match="live already"):
        traffic.set(Wanted(experiment="e", canary=CanaryPlan(release=1)), "anna", "to see")
    with pytest.raises(TrafficNotPossible, match="no split"):
        traffic.end("home", "anna", "none")
    assert traffic.splits() == [] and traffic.changed_since(0) is None


def test_a_split_holds_until_it_ends_and_every_change_is_kept(traffic: TrafficTable, releases: ReleaseTable) -> None:
    split = traffic.set(Wanted(experiment="e", arms=HALVES, shadow=3), "anna", "to see")
    assert traffic.splits() == [split] and split.releases == {1, 2, 3}
    assert releases.of(2).state == "canary" and releases.of(3).state == "candidate"
    home = traffic.set(Wanted(placement="home", experiment="h", arms=(Arm(1, 90), Arm(2, 10))), "anna", "more")
    assert [found.placement for found in traffic.splits()] == ["", "home"]
    with pytest.raises(TrafficError, match="runs at placement 'home'"):
        traffic.set(Wanted(experiment="h", arms=HALVES), "anna", "twice")
    traffic.end("", "ben", "seen")
    assert releases.of(2).state == "canary", "it has an arm at home"
    traffic.end("home", "ben", "seen")
    assert releases.of(2).state == "candidate" and 2 in releases.standing().spares, "it may be tried again at once"
    outcomes = [(change.experiment, change.outcome, change.who) for change in traffic.changes()]
    assert outcomes == [("e", "set", "anna"), ("h", "set", "anna"), ("e", "ended", "ben"), ("h", "ended", "ben")]
    assert home.stage > split.stage


def test_a_canary_grows_step_by_step_and_goes_live(traffic: TrafficTable, releases: ReleaseTable) -> None:
    split = traffic.set(Wanted(experiment="c", canary=CanaryPlan(release=2, steps=(5, 50))), "anna", "new model")
    assert split.arms == (Arm(1, 95), Arm(2, 5))
    assert traffic.grow(split, "gateway", "as good") and not traffic.grow(split, "gateway", "twice")
    (grown,) = traffic.splits()
    assert grown.arms == HALVES and grown.step == 1 and grown.since_ms == split.since_ms
    assert traffic.grow(grown, "gateway", "as good")
    assert traffic.splits() == [] and releases.standing().live == 2
    assert releases.rollback("anna", "after all")[0] == 1


def test_a_canary_that_failed_says_why(traffic: TrafficTable, releases: ReleaseTable) -> None:
    split = traffic.set(Wanted(experiment="c", canary=CanaryPlan(release=2)), "anna", "new model")
    assert traffic.roll_back(split, "gateway", "p99 is 9 ms") and not traffic.roll_back(split, "gateway", "twice")
    assert releases.of(2).state == "failed" and "p99 is 9 ms" in releases.changes(2)[-1].why
    assert releases.standing().live == 1 and traffic.splits() == []


def test_a_split_ends_where_its_releases_have_moved_on(traffic: TrafficTable, releases: ReleaseTable) -> None:
    split = traffic.set(Wanted(experiment="c", canary=CanaryPlan(release=2)), "anna", "new model")
    assert not traffic.end_if_stranded(split, "gateway")
    releases.change_state(3, "live", "anna", "instead")
    assert traffic.end_if_stranded(split, "gateway")
    assert "no longer live" in traffic.changes()[-1].why and releases.of(2).state == "candidate"
    again = traffic.set(Wanted(experiment="d", arms=(Arm(3, 50), Arm(2, 50))), "anna", "again")
    releases.retire(2, "anna", "no")
    assert traffic.end_if_stranded(again, "gateway") and "held ready" in traffic.changes()[-1].why
    assert not traffic.end_if_stranded(replace(again, stage=0), "gateway")
