"""The test of clicks keeps its promise at every look, finds what is there, and a canary is judged by it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from features.traffic.canary import judge
from features.traffic.sequential_test import FirstClicks, difference, evidence_path, p_value_worse
from features.traffic.split import CanaryPlan, Guardrails, Split, canary_arms
from features.traffic.stage_figures import ArmFigures

MINUTE_MS = 60_000


def runs(ratio: float, share: float, count: int, clicks: int) -> Iterator[np.ndarray]:
    """Whether each first click was of the treatment, (clicks,), in so many experiments."""
    chance = share * ratio / (share * ratio + 1 - share)
    draw = np.random.default_rng(7)
    yield from (draw.random((count, clicks)) < chance)


def alarms(ratio: float, share: float, count: int, clicks: int, *, worse: bool) -> float:
    """Share of the experiments in which the test ever says at 5% that the arms differ, looked at after every click."""
    shares = np.full(clicks, share)
    found = [evidence_path(run, shares, worse=worse).max() for run in runs(ratio, share, count, clicks)]
    return float((np.array(found) >= math.log(20)).mean())


@pytest.mark.parametrize(("share", "worse"), [(0.5, False), (0.05, True)])
def test_equal_arms_are_an_alarm_in_one_of_twenty_experiments_at_most_although_each_click_is_looked_at(
    share: float, worse: bool
) -> None:
    assert alarms(1.0, share, 1_000, 500, worse=worse) <= 0.05
    numbers = np.arange(1, 501)
    deviations = (run.cumsum() - numbers * share for run in runs(1.0, share, 1_000, 500))
    z = np.array(list(deviations)) / np.sqrt(numbers * share * (1 - share))
    assert (np.abs(z[:, 20:]) > 1.96).any(axis=1).mean() > 0.2, "a test that is meant for one look"


def test_an_arm_with_a_third_fewer_clicks_is_found_and_a_better_one_is_no_alarm() -> None:
    assert alarms(0.67, 0.5, 200, 1_000, worse=True) > 0.95
    assert alarms(1.5, 0.5, 200, 1_000, worse=True) < 0.02


def test_what_is_known_at_a_look_is_what_the_counts_say() -> None:
    treated = np.array([True] * 30 + [False] * 70 + [True] * 60 + [False] * 140)
    path = evidence_path(treated, np.repeat([0.5, 0.25], [100, 200]))
    counts = [FirstClicks(0.5, 30, 100), FirstClicks(0.25, 60, 200)]
    assert difference(counts).p_value == pytest.approx(min(1.0, math.exp(-path[-1])))
    assert difference(counts[:1]).p_value == pytest.approx(min(1.0, math.exp(-path[99])))


def test_the_interval_holds_the_truth_at_every_look_and_shares_may_change_on_the_way() -> None:
    draw = np.random.default_rng(3)
    ratio, missed = 0.8, 0
    for _ in range(100):
        counts: list[FirstClicks] = []
        for share in (0.05, 0.25, 0.5):
            clicks = 200
            counts.append(
                FirstClicks(share, int(draw.binomial(clicks, share * ratio / (share * ratio + 1 - share))), 200)
            )
            found = difference(counts)
            if not found.low <= ratio <= found.high:
                missed += 1
                break
    assert missed <= 10


def test_the_ratio_is_that_of_the_counts() -> None:
    found = difference([FirstClicks(0.5, 480, 1_000)])
    assert found.ratio == pytest.approx(480 / 520) and found.low < 480 / 520 < found.high and found.p_value > 0.1
    assert difference([]).ratio is None and difference([]).p_value == 1.0
    assert p_value_worse([FirstClicks(0.5, 900, 1_000)]) == 1.0
    assert p_value_worse([FirstClicks(0.5, 300, 1_000)]) < 1e-10


def split(step_minutes: float = 10.0) -> Split:
    plan = CanaryPlan(release=2, steps=(10, 50), step_minutes=step_minutes, guardrails=Guardrails(least_answers=200))
    return Split(
        placement="",
        experiment="c",
        arms=canary_arms(1, plan, 0),
        canary=plan,
        shadow=None,
        stage=1,
        step=0,
        stage_since_ms=0,
        since_ms=0,
        start_position=0,
    )


def figures(
    answers: int = 1_000, failed: int = 0, lower: int = 0, slow: int = 0, shoppers: int | None = None
) -> ArmFigures:
    return ArmFigures(
        answers=answers,
        failed=failed,
        lower=lower,
        shoppers=answers if shoppers is None else shoppers,
        latencies_ms=np.array([5.0, 50.0]),
        times=np.array([answers - slow, slow]),
    )


@pytest.mark.parametrize(
    ("canary", "clicks", "action", "word"),
    [
        (figures(), [FirstClicks(0.1, 10, 100)], "grow", "10%"),
        (figures(failed=40), [], "roll back", "errors"),
        (figures(failed=11), [], "grow", "within"),
        (figures(lower=100), [], "roll back", "lower tiers"),
        (figures(lower=100, shoppers=50), [], "grow", "within"),
        (figures(slow=50), [], "roll back", "p99"),
        (figures(), [FirstClicks(0.1, 20, 1_000)], "roll back", "clicks"),
        (figures(answers=199, failed=199), [], "wait", "199 of 200"),
    ],
)
def test_a_canary_is_judged_by_its_guardrails(
    canary: ArmFigures, clicks: list[FirstClicks], action: str, word: str
) -> None:
    verdict = judge(split(), figures(), canary, clicks, 11 * MINUTE_MS)
    assert verdict.action == action and word in verdict.why
    early = judge(split(), figures(), canary, clicks, 9 * MINUTE_MS)
    assert early.action == (action if action == "roll back" else "wait")
