"""What becomes of a canary: it is rolled back where a guardrail says so, grows when its step is over, or goes on.

A rate is beyond its guardrail only where the lower end of its 95% interval is: few answers do not condemn. A shopper
without a long-term vector is answered from a lower tier again and again, so that of tiers the interval is that of as
many trials as there were shoppers. The p99 is compared by the share of the canary's answers that take longer than the
allowed multiple of the live release's p99; of an equally quick one that is one in a hundred at most. Clicks are judged
by `features.traffic.sequential_test`, which keeps its promise although this looks every few seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from features.traffic.rate import Rate
from features.traffic.sequential_test import FirstClicks, difference, p_value_worse
from features.traffic.split import Split
from features.traffic.stage_figures import ArmFigures


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with a canary, and why."""

    action: Literal["wait", "grow", "roll back"]
    why: str


def judge(split: Split, live: ArmFigures, canary: ArmFigures, clicks: Sequence[FirstClicks], now_ms: int) -> Verdict:
    """Compares a canary's step with its guardrails and its plan."""
    plan = split.canary
    assert plan is not None
    beyond = _beyond(split, live, canary, clicks)
    if beyond:
        return Verdict("roll back", beyond)
    minutes = (now_ms - split.stage_since_ms) / 60_000
    if minutes < plan.step_minutes:
        return Verdict("wait", f"{minutes:.1f} of {plan.step_minutes:g} minutes")
    if canary.answers < plan.guardrails.least_answers:
        return Verdict("wait", f"{canary.answers} of {plan.guardrails.least_answers} answers")
    return Verdict("grow", f"within its guardrails at {plan.steps[split.step]:g}% for {minutes:.1f} minutes")


def _beyond(split: Split, live: ArmFigures, canary: ArmFigures, clicks: Sequence[FirstClicks]) -> str:
    """Which guardrail a canary is beyond, and by what; empty where it is within all."""
    assert split.canary is not None
    rails = split.canary.guardrails
    p_value = p_value_worse(clicks)
    if p_value <= rails.alpha:
        found = difference(clicks, rails.alpha)
        return f"clicks: {found.ratio:.2f} times the live release's ({found.clicked} shoppers, p = {p_value:.2g})"
    if min(live.answers, canary.answers) < rails.least_answers:
        return ""
    for name, of_live, of_canary, trials, most_rise in (
        ("errors", live.failed, canary.failed, canary.answers, rails.max_error_rise),
        ("lower tiers", live.lower, canary.lower, canary.shoppers, rails.max_lower_tier_rise),
    ):
        rate, usual = Rate.of(of_canary, canary.answers, trials), of_live / live.answers
        if rate.low > usual + most_rise:
            return f"{name}: {rate} of {canary.answers} answers, the live release {usual:.2%}"
    allowed_ms = rails.max_p99_ratio * live.p99_ms
    slow = Rate.of(canary.slower_than(allowed_ms), canary.answers)
    if slow.low > 0.01:
        return f"p99: {canary.p99_ms:.1f} ms, the live release {live.p99_ms:.1f} ms"
    return ""
