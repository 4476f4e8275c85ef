"""Whether the gate means something: when the fused model leans on the long-term strand, and whether that helps.

    python -m benchmarks.quality.gate_report --data <folder> [--seed 0] [--device cpu] [--configuration FILE]

Takes the fused model that `python -m benchmarks.quality` fitted, or fits it. For every test moment that has both
strands: the mean weight of the long one by time since the last event, by how long the shopper was away before the last
visit, by events of that visit and by how alike the last items are, each with its rank correlation and a bootstrap
interval over shoppers; and the accuracy with the weight forced to 0, 0.5 and 1 beside the model's own. Writes gate.md,
gate.json and gate.png beside the other results.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from tqdm import tqdm

from benchmarks.quality.figures import mean, moment_figures
from benchmarks.quality.folders import CACHE, SplitBy, open_task
from benchmarks.quality.gate_signals import (
    LAST_ITEMS,
    Signal,
    days_away,
    hours_since,
    likeness,
    signal,
    visit_events,
)
from benchmarks.quality.plots import save
from benchmarks.quality.results import Job
from benchmarks.quality.task import Task
from benchmarks.quality.variants import FUSED
from benchmarks.quality.worker import BenchError, result_of
from benchmarks.table import Table
from features.terminal import console
from training.config import Config
from training.configuration_file import read_configuration
from training.dataset import DataError
from training.evaluate import CHUNK, rank
from training.fit import build_model
from training.fusion import FusionModel
from training.scoring import ModelScorer

FORCED: tuple[float | None, ...] = (0.0, 0.5, 1.0, None)


def gate_report(task: Task, model: FusionModel, device: str) -> tuple[list[Signal], dict[str, float]]:
    """The signals, and the second headline figure by long weight ("free" is the model's own).

    Raises:
        BenchError: no test moment has both strands, so the gate is never asked.
    """
    scorer = ModelScorer(model, task.log, device=device)
    moments = task.final.test.moments
    weights = np.concatenate(
        [
            scorer.read(moments.take(np.arange(at, min(at + CHUNK, len(moments)))))[1]
            for at in tqdm(range(0, len(moments), CHUNK), desc="long weights", unit="chunk", leave=False)
        ]
    ).astype(np.float64)
    mixed = np.flatnonzero((weights > 0) & (weights < 1))
    if not len(mixed):
        raise BenchError(f"{task.name}: no test moment has both a long-term and a short-term strand; nothing to report")
    asked = moments.take(mixed)
    with torch.inference_mode():
        vectors = model.tower()[0].float().cpu().numpy()
    properties = {
        "hours since the last event": hours_since(task.log, asked),
        "days from the visit before to the last one": days_away(task.log, asked),
        "events in the last visit": visit_events(task.log, asked),
        f"likeness of the last {LAST_ITEMS} items": likeness(task.log, asked, vectors),
    }
    signals = [signal(name, values, weights[mixed], asked.shoppers) for name, values in properties.items()]
    accuracy: dict[str, float] = {}
    for forced in tqdm(FORCED, desc="forced weights", leave=False):
        ranked = rank(ModelScorer(model, task.log, device=device, long_weight=forced), task.final)
        figures, rows = moment_figures(task.final.test, ranked)
        accuracy["free" if forced is None else f"{forced:g}"] = mean(task, figures[task.headline[1]], rows)
    return signals, accuracy


def kept_model(task: Task, job: Job) -> FusionModel:
    """The fitted model of a job whose result is kept."""
    model, _ = build_model(task.tuning, Config.from_dict(job.identity["configuration"]))
    model.load_state_dict(torch.load(job.path(task).with_suffix(".pt"), weights_only=True))
    return model


def report_tables(task: Task, signals: Sequence[Signal], accuracy: dict[str, float]) -> list[Table]:
    """One table a signal, and one of the forced weights."""
    found = []
    for part in signals:
        known = part.correlation
        title = f"{part.name}: rank correlation {known.value:+.3f} ({known.low:+.3f} to {known.high:+.3f})"
        rows = [
            (f"{value:.3g}", f"{weight:.3f}", f"{count:,}")
            for value, weight, count in zip(part.edges, part.weights, part.counts, strict=True)
        ]
        found.append(Table(title=title, columns=("mean value", "mean long weight", "moments"), rows=tuple(rows)))
    forced = tuple((name, f"{value:.4f}") for name, value in accuracy.items())
    return [*found, Table(title="accuracy by long weight", columns=("long weight", task.headline[1]), rows=forced)]


def write_report(folder: Path, task: Task, signals: Sequence[Signal], accuracy: dict[str, float]) -> None:
    """Writes gate.md, gate.json and gate.png."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(table.markdown() for table in report_tables(task, signals, accuracy))
    (folder / "gate.md").write_text(f"# The gate on {task.name}\n\n{text}")
    values = {"signals": [asdict(part) for part in signals], "accuracy": accuracy}
    (folder / "gate.json").write_text(json.dumps(values, indent=1) + "\n")
    canvas = Figure(figsize=(4 * (len(signals) + 1), 3.5))
    axes = canvas.subplots(1, len(signals) + 1)
    for place, part in zip(axes, signals, strict=False):
        place.plot(range(len(part.edges)), part.weights, marker="o")
        place.set_xticks(range(len(part.edges)), [f"{value:.2g}" for value in part.edges])
        place.set(xlabel=part.name, ylabel="mean long weight", ylim=(0, 1))
    axes[-1].bar(list(accuracy), list(accuracy.values()))
    axes[-1].set(xlabel="long weight", ylabel=task.headline[1])
    save(canvas, folder / "gate.png")


def main(
    data: Annotated[str, typer.Option(help="folder of the data set, or `simulated`")],
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    protocol: Annotated[SplitBy, typer.Option(help="of Amazon Beauty")] = SplitBy.LEAVE_ONE_OUT,
    configuration: Annotated[Path | None, typer.Option(help="as of `python -m benchmarks.quality`")] = None,
) -> None:
    """Reports what the gate of the fused model does."""
    try:
        task = open_task(data, protocol)
        job = Job(
            data=data,
            split_by=protocol,
            cache=CACHE,
            task=task.name,
            model=FUSED,
            seed=seed,
            device=device,
            config=read_configuration(configuration) if configuration else None,
        )
        result_of(job, task)
        signals, accuracy = gate_report(task, kept_model(task, job), device)
    except (DataError, ValueError, BenchError) as error:
        sys.exit(str(error))
    for table in report_tables(task, signals, accuracy):
        console.print(table.rich())
    write_report(CACHE / task.name, task, signals, accuracy)
    console.print(f"{CACHE / task.name / 'gate.md'}")


if __name__ == "__main__":
    typer.run(main)
