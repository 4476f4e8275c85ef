"""All models of a run with their figures, and how they compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from benchmarks.quality.bootstrap import Interval, differences
from benchmarks.quality.figures import mean_figures, moment_figures, spread, summarise
from benchmarks.quality.folders import SplitBy
from benchmarks.quality.lists import Shelf
from benchmarks.quality.results import Job, Result
from benchmarks.quality.task import Task
from benchmarks.quality.variants import FUSED, LONG_ONLY, SHORT_ONLY
from benchmarks.quality.worker import result_of
from training.baselines import BASELINES
from training.config import Config

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One model. results: of each seed. figures: of each seed; mean and deviation over seeds stand beside."""

    name: str
    results: tuple[Result, ...]
    figures: tuple[dict[str, float], ...]
    mean: dict[str, float]
    deviation: dict[str, float]

    def fact(self, name: str) -> float | None:
        """The mean over seeds of a number that was noted while fitting, None if it was not."""
        values = [result.facts[name] for result in self.results if name in result.facts]
        return float(np.mean(values)) if values else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How much better `model` is than `other` by `figure`."""

    model: str
    other: str
    figure: str
    difference: Interval


def measure_models(
    task: Task,
    models: Sequence[str],
    *,
    seeds: int,
    data: str,
    split_by: SplitBy,
    device: str,
    cache: Path,
    config: Config | None = None,
) -> list[Measured]:
    """Every model on the task; a baseline draws nothing that matters and has one seed. `config` as in `Job`.

    Raises:
        BenchError: a model's process failed.
    """
    shelf = Shelf(task.final)
    wanted = [(model, seed) for model in models for seed in range(1 if model in BASELINES else seeds)]
    results: dict[str, list[Result]] = {model: [] for model in models}
    progress = tqdm(wanted, desc=task.name, unit="model")
    for model, seed in progress:
        progress.set_postfix_str(f"{model}, seed {seed}")
        job = Job(
            data=data,
            split_by=split_by,
            cache=cache,
            task=task.name,
            model=model,
            seed=seed,
            device=device,
            config=config,
        )
        results[model].append(result_of(job, task))
    measured = []
    for model in tqdm(models, desc="figures", unit="model", leave=False, mininterval=0.5):
        figures = [summarise(task, result.answers, shelf) for result in results[model]]
        measured.append(
            Measured(
                name=model,
                results=tuple(results[model]),
                figures=tuple(figures),
                mean=mean_figures(figures),
                deviation=spread(figures),
            )
        )
    return measured


def compare(task: Task, measured: Sequence[Measured]) -> list[Comparison]:
    """Each model against the best baseline, and the fused one against either strand alone, by the second headline.

    A moment's figure is the mean over seeds. The best baseline is the best on the test itself, which favours it.
    """
    figure = task.headline[1]
    baselines = [model for model in measured if model.name in BASELINES]
    best = max(baselines, key=lambda model: model.mean[figure], default=None)
    pairs = [(model.name, best.name) for model in measured if best and model.name not in BASELINES]
    names = {model.name for model in measured}
    pairs += [(FUSED, other) for other in (LONG_ONLY, SHORT_ONLY) if {FUSED, other} <= names]
    if not pairs:
        return []
    asked = {name for pair in pairs for name in pair}
    each = {model.name: _each_moment(task, model, figure) for model in measured if model.name in asked}
    intervals = differences(
        np.stack([each[model] - each[other] for model, other in pairs]),
        task.final.test.moments.shoppers,
        mean_of_shoppers=task.mean_of_shoppers,
    )
    return [
        Comparison(model=model, other=other, figure=figure, difference=interval)
        for (model, other), interval in zip(pairs, intervals, strict=True)
    ]


def _each_moment(task: Task, model: Measured, figure: str) -> Floats:
    """The figure of each test moment, (E,)."""
    rows = [moment_figures(task.final.test, result.answers.ranked)[0][figure] for result in model.results]
    return np.asarray(np.mean(rows, axis=0))
