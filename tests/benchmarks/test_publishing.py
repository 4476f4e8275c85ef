"""What callers saw of a switch is read from the calls that were due meanwhile, and from those just before."""

from __future__ import annotations

from benchmarks.offered_load import Call
from benchmarks.publishing import Switch, effect

SWITCH = Switch(kind="promote", release=2, began_s=100.0, first_answer_s=103.0, ended_s=107.0)


def calls(since_s: float, until_s: float, seconds: float, code: str = "OK", tier: str = "TIER_FULL") -> list[Call]:
    """Ten calls a second."""
    return [Call(seconds, code, tier, since_s + number / 10) for number in range(round(10 * (until_s - since_s)))]


def test_calls_before_during_and_after_are_told_apart() -> None:
    found = effect(
        SWITCH, [*calls(80, 90, 9.0), *calls(90, 100, 0.010), *calls(100, 107, 0.014), *calls(107, 120, 9.0)]
    )
    assert (found.calls, found.failed, found.degraded) == (70, 0, 0)
    assert found.seconds_to_first_answer == 3.0
    assert round(found.p99_ms_before, 6) == 10 and round(found.p99_ms, 6) == 14 and round(found.ratio, 6) == 1.4


def test_failures_and_lower_tiers_during_the_switch_are_counted() -> None:
    during = [
        *calls(100, 101, 0.01, code="UNAVAILABLE", tier=""),
        *calls(101, 103, 0.01, tier="TIER_POPULAR"),
        *calls(103, 107, 0.01, tier="TIER_RECENT"),
    ]
    found = effect(SWITCH, [*calls(90, 100, 0.01, code="INTERNAL", tier=""), *during])
    assert (found.calls, found.failed_before, found.failed, found.degraded) == (70, 100, 10, 20)
