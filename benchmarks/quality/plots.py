"""Plots of a run, PNG: accuracy with its spread, by history length, against coverage, and reliability."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.quality.figures import GROUPS, SHORT_EVENTS, reliability_of
from benchmarks.quality.measured import Measured
from benchmarks.quality.task import Task

LINES = 6
"""At most so many models in one plot of lines, the best."""
GROUP_LABELS = ("no event", f"1 to {SHORT_EVENTS} events", f"more than {SHORT_EVENTS}")


def write_plots(folder: Path, task: Task, measured: Sequence[Measured]) -> None:
    """Writes accuracy.png, history.png, coverage.png and, where a model gives probabilities, reliability.png."""
    folder.mkdir(parents=True, exist_ok=True)
    figure = task.headline[1]
    ordered = sorted(measured, key=lambda model: model.mean[figure])
    _accuracy(folder / "accuracy.png", task, ordered)
    _history(folder / "history.png", task, ordered[-LINES:])
    _coverage(folder / "coverage.png", task, ordered)
    _reliability(folder / "reliability.png", task, ordered)


def _accuracy(path: Path, task: Task, measured: Sequence[Measured]) -> None:
    figure = task.headline[1]
    canvas = Figure(figsize=(7, 1 + 0.3 * len(measured)))
    axes = canvas.subplots()
    axes.barh([model.name for model in measured], [model.mean[figure] for model in measured], color="tab:blue")
    for place, model in enumerate(measured):
        values = [row[figure] for row in model.figures]
        axes.plot(values, [place] * len(values), "k.", markersize=4)
    axes.set(xlabel=f"{figure}; dots are seeds", title=task.name)
    save(canvas, path)


def _history(path: Path, task: Task, measured: Sequence[Measured]) -> None:
    figure = task.headline[1]
    kept = [(label, group) for label, group in zip(GROUP_LABELS, GROUPS, strict=True) if _any(measured, group, figure)]
    canvas = Figure(figsize=(7, 4))
    axes = canvas.subplots()
    for model in measured:
        values = [model.mean[f"{group}_{figure}"] for _, group in kept]
        axes.plot([label for label, _ in kept], values, marker="o", label=model.name)
    axes.set(xlabel="known of the shopper before", ylabel=figure, ylim=(0, None), title=task.name)
    axes.legend()
    save(canvas, path)


def _any(measured: Sequence[Measured], group: str, figure: str) -> bool:
    return f"{group}_{figure}" in measured[0].mean


def _coverage(path: Path, task: Task, measured: Sequence[Measured]) -> None:
    figure = task.headline[1]
    canvas = Figure(figsize=(7, 5))
    axes = canvas.subplots()
    for model in measured:
        axes.plot(model.mean["coverage"], model.mean[figure], "o")
        axes.annotate(model.name, (model.mean["coverage"], model.mean[figure]), fontsize=7)
    axes.set(xlabel="share of items that stand in any first ten", ylabel=figure, title=task.name)
    save(canvas, path)


def _reliability(path: Path, task: Task, measured: Sequence[Measured]) -> None:
    curves = {model.name: reliability_of(task, model.results[0].answers) for model in measured}
    canvas = Figure(figsize=(5, 5))
    axes = canvas.subplots()
    for name, curve in curves.items():
        if curve is not None:
            axes.plot(curve.said, curve.came, marker="o", label=f"{name}, error {curve.error:.4f}")
    if axes.lines:
        ends = np.array([1e-4, 1.0])
        axes.plot(ends, ends, "k--", linewidth=1)
        axes.set(
            xscale="log", yscale="log", xlabel="probability said (seed 0)", ylabel="share that came", title=task.name
        )
        axes.legend(fontsize=7)
        save(canvas, path)


def save(canvas: Figure, path: Path) -> None:
    """Writes a picture."""
    canvas.tight_layout()
    canvas.savefig(path, dpi=150)
