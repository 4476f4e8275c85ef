"""Every figure of one ranking: over all moments, over repeats and new items apart, by how much was known before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.quality.calibration import Reliability, reliability
from benchmarks.quality.lists import Shelf
from benchmarks.quality.ranking import Answers
from benchmarks.quality.task import Task
from training.evaluate import TestSet, target_hits
from training.metrics import hits_of, mean_of_shoppers, mrr_at, ndcg_at, recall_at
from training.moments import Ints, Longs

PLACES = (5, 10, 20)
SHORT_EVENTS = 5
GROUPS = ("cold", "short", "warm")
"""Moments before which a shopper had no event, at most `SHORT_EVENTS`, more."""

Floats = npt.NDArray[np.float64]


def moment_figures(
    test: TestSet, ranked: Ints, kept: npt.NDArray[np.bool_] | None = None
) -> tuple[dict[str, Floats], Longs]:
    """Recall, hit rate, NDCG and MRR at 5, 10 and 20 of each moment, (R,) each, and the rows of these moments.

    Args:
        ranked: int32 (E, K). kept: of each flat target, whether it counts; moments left with none are left out.
    """
    hits, sizes = target_hits(test.moments, ranked, kept)
    rows = np.flatnonzero(sizes)
    hits, sizes = hits[rows], sizes[rows].astype(np.int64)
    figures: dict[str, Floats] = {}
    for k in PLACES:
        figures[f"recall@{k}"] = recall_at(hits, sizes, k)
        figures[f"hr@{k}"] = np.asarray(hits[:, :k].any(axis=1), np.float64)
        figures[f"ndcg@{k}"] = ndcg_at(hits, sizes, k)
        figures[f"mrr@{k}"] = mrr_at(hits, k)
    return figures, rows


def summarise(task: Task, answers: Answers, shelf: Shelf) -> dict[str, float]:
    """Means by name: `<figure>`, `repeat_<figure>` and `explore_<figure>`, `cold_`, `short_` and `warm_<figure>` (these
    of the headline alone, with `<group>_moments`), coverage, novelty, diversity, gini, calibration_error.

    A part that no moment has is left out.
    """
    test = task.final.test
    every, all_rows = moment_figures(test, answers.ranked)
    found = {name: mean(task, values, all_rows) for name, values in every.items()}
    for part, kept in (("repeat", test.repeated), ("explore", ~test.repeated)):
        figures, rows = moment_figures(test, answers.ranked, kept)
        if len(rows):
            found |= {f"{part}_{name}": mean(task, values, rows) for name, values in figures.items()}
    group = history_groups(task)
    for number, name in enumerate(GROUPS):
        rows = np.flatnonzero(group == number)
        found[f"{name}_moments"] = float(len(rows))
        if len(rows):
            found |= {f"{name}_{figure}": mean(task, every[figure][rows], rows) for figure in task.headline}
    found |= shelf.figures(answers.ranked)
    curve = reliability_of(task, answers)
    return found | ({"calibration_error": curve.error} if curve else {})


def mean(task: Task, values: Floats, rows: Longs) -> float:
    """The mean that the task's protocol asks for, of figures (R,) of the test moments `rows` (R,)."""
    if task.mean_of_shoppers:
        return mean_of_shoppers(values, task.final.test.moments.shoppers[rows])
    return float(values.mean())


def mean_figures(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean over seeds of every figure."""
    return {name: float(np.mean([row[name] for row in figures])) for name in figures[0]}


def spread(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The standard deviation over seeds of every figure, 0 of one seed."""
    return {name: float(np.std([row[name] for row in figures], ddof=min(len(figures) - 1, 1))) for name in figures[0]}


def history_groups(task: Task) -> Longs:
    """Index into `GROUPS` of every test moment, (E,)."""
    moments, log = task.final.test.moments, task.log
    known = log.rows_before(moments.shoppers, moments.times_ms) - log.starts[moments.shoppers]
    return (known > 0).astype(np.int64) + (known > SHORT_EVENTS)


def reliability_of(task: Task, answers: Answers) -> Reliability | None:
    """The curve of a method that gives probabilities."""
    moments = task.final.test.moments
    if answers.probabilities is None:
        return None
    hits = hits_of(answers.ranked, moments.targets, moments.offsets)
    return reliability(answers.probabilities, hits, np.diff(moments.offsets))
