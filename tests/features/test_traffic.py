"""Splits: who falls into which arm, what is refused, and what the database keeps, on SQLite and PostgreSQL."""

from __future__ import annotations

import random
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


def weighted(*weights: float) -> tuple[Arm, ...]:
    """The control and arms of these weights, releases 2, 3 and so on."""
    return Arm(1, 100 - sum(weights)), *(Arm(2 + place, weight) for place, weight in enumerate(weights))


def dealt(arms: tuple[Arm, ...], shoppers: int = 4_000) -> list[int]:
    """The release of each shopper."""
    return [arm_at(point_of("dealt", f"u:{number}"), arms) for number in range(shoppers)]


@pytest.mark.parametrize(("arms", "most"), [(3, 98), (5, 25), (8, 12.5)])
def test_an_arm_that_grows_takes_from_the_control_alone_and_one_that_stays_keeps_its_shoppers(
    arms: int, most: float
) -> None:
    draw = random.Random(arms)
    weights = [10.0] * (arms - 1)
    before = dealt(weighted(*weights))
    for _ in range(30):
        changed = draw.randrange(arms - 1)
        left = 99 - sum(weights) + weights[changed]
        grows = (weight := draw.uniform(0.1, min(most, left))) >= weights[changed]
        weights[changed] = weight
        after = dealt(weighted(*weights))
        moves = {move for move in zip(before, after, strict=True) if move[0] != move[1]}
        assert moves <= {(1, 2 + changed) if grows else (2 + changed, 1)}
        before = after


@pytest.mark.parametrize("weights", [(60, 10, 10, 10), (5, 30, 40, 20), (20, 30, 20, 3, 2, 11, 5), (12.5,) * 7])
def test_arms_beyond_their_ground_have_their_share_and_lose_none_where_they_grow(weights: tuple[float, ...]) -> None:
    found = dealt(weighted(*weights), 10_000)
    for arm in weighted(*weights):
        deviation = (arm.weight * (100 - arm.weight)) ** 0.5 / 10_000
        assert abs(found.count(arm.release) / 10_000 - arm.weight / 100) < 4 * deviation
    for place, weight in enumerate(weights):
        grown = dealt(weighted(*weights[:place], weight + 2, *weights[place + 1 :]), 10_000)
        assert all(release != 2 + place or then == release for release, then in zip(found, grown, strict=True))
        assert all(
            then == release for release, then in zip(found, grown, strict=True) if release in range(2, 2 + place)
        )


def test_two_arms_stand_where_they_stood() -> None:
    arms = (Arm(7, 70), Arm(9, 30))
    assert [arm_at(point, arms) for point in (0.0, 0.2999, 0.3, 0.9999)] == [9, 9, 7, 7]


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


@pytest.mark.parametrize("arms", [(), HALVES])
def test_a_split_ends_where_its_shadow_is_retired(
    traffic: TrafficTable, releases: ReleaseTable, arms: tuple[Arm, ...]
) -> None:
    split = traffic.set(Wanted(experiment="s", arms=arms, shadow=3), "anna", "to see")
    assert not traffic.end_if_stranded(split, "gateway")
    releases.retire(3, "anna", "seen")
    assert traffic.end_if_stranded(split, "gateway") and traffic.splits() == []
    assert traffic.changes()[-1].why == "release 3 is no longer held ready"
