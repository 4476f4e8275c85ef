"""How often the test of clicks cries wolf, and how soon it finds a difference, when it is looked at after every click.

    python -m benchmarks.quality.sequential_test [--runs 2000] [--shoppers 4000]

Whole experiments are played: shoppers fall into arms by the hash that the gateway uses, each clicks at a rate of their
own, rates go up and down with the hour for all alike, a canary grows from step to step, and each shopper's first click
counts. A/A runs have equal arms, A/B runs a treatment whose shoppers click `ratio` times as often. `naive` is what a
test for one look, at 5%, would have said if it had been looked at as often.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.record import write
from features.traffic.sequential_test import evidence_path
from features.traffic.split import point_of

ALPHA = 0.05
FIRST_NAIVE_LOOK = 50
CLICKS_A_SHOPPER = 0.5
"""Expected of the average shopper by the end of a run."""
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Of many runs of one kind."""

    steps: list[float]
    ratio: float
    runs: int
    stopped_two_sided: float
    """Share of runs in which "no difference" was ever rejected."""
    stopped_worse: float
    """Share in which "not worse" was, as a canary's guardrail does."""
    stopped_naive: float
    median_clicks_to_stop: float | None
    """First clicks of both arms until "no difference" was rejected, of the runs in which it was."""


def points(runs: int, shoppers: int) -> Floats:
    """Where each shopper falls in each run, (runs, shoppers): a run is an experiment of its own name."""
    names = [f"u:{number}" for number in range(shoppers)]
    return np.array([[point_of(f"run-{run}", name) for name in names] for run in range(runs)])


def first_clicks(found: Floats, steps: list[float], ratio: float, draw: np.random.Generator) -> tuple[Bools, Floats]:
    """One run: arms of the shoppers who clicked, in the order of their first clicks, and the share at that time."""
    rates = draw.gamma(0.5, 2 * CLICKS_A_SHOPPER / len(steps), found.size)
    waiting = np.ones(found.size, np.bool_)
    arms, shares = [], []
    for number, share in enumerate(steps):
        treated = found < share
        busy = 1.0 + 0.8 * math.sin(number)  # all alike: another hour, another rate
        times = draw.exponential(1.0, found.size) / (rates * busy * np.where(treated, ratio, 1.0) + 1e-12)
        clicked = np.flatnonzero(waiting & (times < 1.0))
        clicked = clicked[np.argsort(times[clicked])]
        waiting[clicked] = False
        arms.append(treated[clicked])
        shares.append(np.full(clicked.size, share))
    return np.concatenate(arms), np.concatenate(shares)


def play(steps: list[float], ratio: float, found: Floats, seed: int) -> Outcome:
    """Many runs of one kind."""
    draw = np.random.default_rng(seed)
    two_sided, worse, naive, stops = 0, 0, 0, []
    for run in found:
        arms, shares = first_clicks(run, steps, ratio, draw)
        beyond = evidence_path(arms, shares) >= math.log(1 / ALPHA)
        two_sided += bool(beyond.any())
        if beyond.any():
            stops.append(int(np.argmax(beyond)) + 1)
        worse += bool((evidence_path(arms, shares, worse=True) >= math.log(1 / ALPHA)).any())
        variance = (shares * (1 - shares)).cumsum()
        z = (arms.cumsum() - shares.cumsum()) / np.sqrt(variance)
        naive += bool((np.abs(z[FIRST_NAIVE_LOOK:]) > 1.96).any())
    runs = len(found)
    return Outcome(
        steps=steps,
        ratio=ratio,
        runs=runs,
        stopped_two_sided=two_sided / runs,
        stopped_worse=worse / runs,
        stopped_naive=naive / runs,
        median_clicks_to_stop=float(np.median(stops)) if stops else None,
    )


def main() -> None:
    """Plays all kinds and keeps the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--shoppers", type=int, default=4_000)
    asked = parser.parse_args()
    found = points(asked.runs, asked.shoppers)
    table = Table("steps", "ratio", "rejected", "worse", "naive", "first clicks to stop, median")
    outcomes: list[Outcome] = []
    for steps, ratio in [
        ([0.5], 1.0),
        ([0.01, 0.05, 0.25, 0.5], 1.0),
        *(([0.5], ratio) for ratio in (0.7, 0.8, 0.9, 1.1, 1.25)),
        *(([0.01, 0.05, 0.25, 0.5], ratio) for ratio in (0.5, 0.8)),
    ]:
        outcome = play(steps, ratio, found, seed=len(outcomes))
        outcomes.append(outcome)
        clicks = outcome.median_clicks_to_stop
        table.add_row(
            ", ".join(f"{step:.0%}" for step in steps),
            f"{ratio:g}",
            f"{outcome.stopped_two_sided:.1%}",
            f"{outcome.stopped_worse:.1%}",
            f"{outcome.stopped_naive:.1%}",
            "-" if clicks is None else f"{clicks:,.0f}",
        )
    Console().print(table)
    figures = [{name: getattr(outcome, name) for name in Outcome.__dataclass_fields__} for outcome in outcomes]
    Console().print(str(write("sequential_test", {"shoppers": asked.shoppers, "outcomes": figures})))


if __name__ == "__main__":
    main()
