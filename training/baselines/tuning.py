"""Settings chosen on the tuning stage alone, and the baselines' figures on the final one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tqdm import tqdm

from training.baselines.baseline import Baseline, Setting, forget
from training.baselines.methods import BASELINES
from training.evaluate import Scorer, Stage, measure, rank

CHEAP = ("popularity", "personal frequency", "item-kNN", "EASE")
"""The baselines that every training run is measured beside."""

SEED = 7


def tune(baseline: Baseline, tuning: Stage, *, figure: str = "ndcg@10", sample: int | None = None) -> Setting:
    """The setting with the highest figure on the tuning stage's test; of equal ones the first.

    Args:
        figure: a name among those that `training.evaluate.measure` gives.
        sample: so many of the test's moments, drawn at random; by default all.
    """
    stage = tuning if sample is None else replace(tuning, test=tuning.test.sample(sample, SEED))
    grid = [setting for setting in baseline.grid if not (stage.test.seen_masked and setting.get("own"))]
    if len(grid) == 1:
        return grid[0]
    found = [
        measure(stage.test, rank(baseline.fit(stage, setting), stage)).get(figure, 0.0)
        for setting in tqdm(grid, desc=f"tuning {baseline.name}", unit="setting", leave=False, disable=None)
    ]
    return grid[int(np.argmax(found))]


def fit_tuned(baseline: Baseline, tuning: Stage, final: Stage) -> tuple[Scorer, Setting]:
    """The baseline learned from the final stage with the setting that `tune` chooses, and this setting."""
    setting = tune(baseline, tuning)
    scorer = baseline.fit(final, setting)
    forget()
    return scorer, setting


def measure_baselines(tuning: Stage, final: Stage) -> dict[str, dict[str, float]]:
    """Figures of each of the `CHEAP` baselines on the final stage's test, by name."""
    found: dict[str, dict[str, float]] = {}
    for name in tqdm(CHEAP, desc="baselines", leave=False, disable=None):
        scorer, _ = fit_tuned(BASELINES[name], tuning, final)
        found[name] = measure(final.test, rank(scorer, final))
    return found
