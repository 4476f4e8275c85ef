"""What diversity costs and brings: accuracy against variety of the lists and share of the catalogue that is shown.

    python -m benchmarks.quality.diversity_curve --data <folder> [--seed 0] [--device cpu]

Takes the fused model that `python -m benchmarks.quality` fitted, or fits it, and makes a page of ten at every test
moment for `diversity` 0, 0.1, … 1, by the gateway's own code. Variety is measured by who had the items
(`benchmarks.quality.lists`), so not by the vectors that the choice is made with, and by those vectors beside it. Time
is the processor's, for one page's choice among the 200 best, similarities included. Writes diversity.md,
diversity.json and diversity.png beside the other results.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import typer
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from tqdm import tqdm

from benchmarks.quality.figures import mean, moment_figures
from benchmarks.quality.folders import CACHE, SplitBy, open_task
from benchmarks.quality.gate_report import kept_model
from benchmarks.quality.lists import PLACES, Shelf
from benchmarks.quality.plots import save
from benchmarks.quality.results import Job
from benchmarks.quality.task import Task
from benchmarks.quality.variants import FUSED
from benchmarks.quality.worker import BenchError, result_of
from benchmarks.record import machine
from benchmarks.table import Table
from features.terminal import console
from server.releases.loaded_release import unit_length
from server.select.diversity import POOL, spread_out
from training.dataset import DataError
from training.evaluate import CHUNK, RANKED, rankable
from training.fusion import FusionModel
from training.moments import Ints
from training.scoring import ModelScorer

STEPS = tuple(step / 10 for step in range(11))
LONGEST_PAGE = 100
TIMED_MOMENTS = 500
"""Moments that are timed for each page size."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One value of `diversity`. Times are microseconds of a core, median and 99th percentile."""

    diversity: float
    ndcg: float
    recall: float
    list_diversity: float
    vector_diversity: float
    coverage: float
    page_us: float
    page_us_p99: float
    longest_page_us: float


def curve(task: Task, model: FusionModel, device: str) -> list[Point]:
    """A point for every step."""
    items, scores = _best(task, model, device)
    with torch.inference_mode():
        units = unit_length(model.tower()[0].float().cpu().numpy())
    shelf = Shelf(task.final)
    points = []
    for diversity in tqdm(STEPS, desc="diversity", leave=False):
        ranked = np.full((len(items), max(RANKED, PLACES)), -1, np.int32)
        taken_us: dict[int, list[float]] = {PLACES: [], LONGEST_PAGE: []}
        for row in range(len(items)):
            for size in (PLACES, LONGEST_PAGE) if row < TIMED_MOMENTS else (PLACES,):
                begin = time.thread_time_ns()
                pool = units[items[row]]
                places = spread_out(scores[row], size, diversity, pool @ pool.T if diversity else None)
                taken_us[size].append((time.thread_time_ns() - begin) / 1000)
                if size == PLACES:
                    ranked[row, : places.size] = items[row, places]
        figures, rows = moment_figures(task.final.test, ranked)
        lists = shelf.figures(ranked)
        page = units[ranked[:, :PLACES]]  # (E, 10, D)
        alike = np.einsum("eid,ejd->eij", page, page).sum(axis=(1, 2)) - PLACES
        points.append(
            Point(
                diversity=diversity,
                ndcg=mean(task, figures["ndcg@10"], rows),
                recall=mean(task, figures["recall@10"], rows),
                list_diversity=lists["diversity"],
                vector_diversity=float(1 - (alike / (PLACES * (PLACES - 1))).mean()),
                coverage=lists["coverage"],
                page_us=float(np.median(taken_us[PLACES])),
                page_us_p99=float(np.quantile(taken_us[PLACES], 0.99)),
                longest_page_us=float(np.median(taken_us[LONGEST_PAGE])),
            )
        )
    return points


def _best(task: Task, model: FusionModel, device: str) -> tuple[Ints, Floats]:
    """The `POOL` best items of every test moment and their scores, best first, int32 and float32 (E, POOL)."""
    scorer, moments = ModelScorer(model, task.log, device=device), task.final.test.moments
    parts = []
    for at in tqdm(range(0, len(moments), CHUNK), desc="ranking", unit="chunk", leave=False):
        asked = moments.take(np.arange(at, min(at + CHUNK, len(moments))))
        scores = rankable(task.final, asked, scorer(asked))
        best = np.argsort(-scores, axis=1, kind="stable")[:, : min(POOL, scores.shape[1])]
        parts.append((best.astype(np.int32), np.take_along_axis(scores, best, axis=1)))
    items, best_scores = zip(*parts, strict=True)
    return np.concatenate(items), np.concatenate(best_scores)


def table(task: Task, points: list[Point]) -> Table:
    """One row a point."""
    return Table(
        title=f"{task.name}: diversity",
        columns=(
            "diversity",
            "ndcg@10",
            "recall@10",
            "list diversity",
            "by vectors",
            "coverage",
            "page of 10, µs",
            "p99",
            f"page of {LONGEST_PAGE}, µs",
        ),
        rows=tuple(
            (
                f"{point.diversity:.1f}",
                f"{point.ndcg:.4f}",
                f"{point.recall:.4f}",
                f"{point.list_diversity:.4f}",
                f"{point.vector_diversity:.4f}",
                f"{point.coverage:.4f}",
                f"{point.page_us:.0f}",
                f"{point.page_us_p99:.0f}",
                f"{point.longest_page_us:.0f}",
            )
            for point in points
        ),
    )


def write(task: Task, points: list[Point]) -> None:
    """Writes diversity.md, diversity.json and diversity.png."""
    folder = CACHE / task.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "diversity.md").write_text(table(task, points).markdown())
    values = {"machine": machine(), "points": [asdict(point) for point in points]}
    (folder / "diversity.json").write_text(json.dumps(values, indent=1) + "\n")
    canvas = Figure(figsize=(9, 4))
    axes = canvas.subplots(1, 2, sharey=True)
    for place, name, label in (
        (axes[0], "list_diversity", "diversity of a list: 1 - mean cosine, by who had the items"),
        (axes[1], "coverage", "share of the catalogue in any list"),
    ):
        place.plot([getattr(point, name) for point in points], [point.ndcg for point in points], marker="o")
        for point in points:
            place.annotate(f"{point.diversity:.1f}", (getattr(point, name), point.ndcg), fontsize=7)
        place.set(xlabel=label, ylim=(0, None))
    axes[0].set(ylabel="ndcg@10", title=task.name)
    save(canvas, folder / "diversity.png")


def main(
    data: Annotated[str, typer.Option(help="folder of the data set, or `simulated`")],
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    protocol: Annotated[SplitBy, typer.Option(help="of Amazon Beauty")] = SplitBy.LEAVE_ONE_OUT,
) -> None:
    """Measures accuracy, variety and time of pages by diversity."""
    try:
        task = open_task(data, protocol)
        job = Job(data=data, split_by=protocol, cache=CACHE, task=task.name, model=FUSED, seed=seed, device=device)
        result_of(job, task)
        with threadpool_limits(1, "blas"):  # as the gateway
            points = curve(task, kept_model(task, job), device)
    except (DataError, BenchError) as error:
        sys.exit(str(error))
    console.print(table(task, points).rich())
    write(task, points)
    console.print(f"{CACHE / task.name / 'diversity.md'}")


if __name__ == "__main__":
    typer.run(main)
