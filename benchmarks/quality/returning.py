"""How well the chance that a shopper comes back is told, beside recency and frequency alone.

    python -m benchmarks.quality.returning [--data simulated]

`--data` as in `python -m benchmarks.quality`. Asked are the moments of the last week whose 30 days are over before the
log ends; learned is from moments whose 30 days were over before the first of them. The baseline is a logistic model of
the same moments on recency and frequency: the logarithms of the days since the last event and of the visits before.
Writes returning.md, returning.json and returning.png into benchmarks/results/quality/<set>/.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from matplotlib.figure import Figure

from benchmarks.quality.calibration import Forecast, forecast, reliability_curve
from benchmarks.quality.folders import CACHE, SIMULATED, SplitBy, open_task
from benchmarks.quality.plots import save
from benchmarks.table import Table
from features.schema import RETURN_FEATURES
from features.terminal import console
from training.dataset import DataError, Log
from training.logistic import fit_logistic
from training.moments import DAY_MS
from training.returning import WINDOW_MS, comes_back, features_of, fit_return, moments_to_learn, return_moments

ASKED_MS = 7 * DAY_MS
RECENCY, FREQUENCY = (RETURN_FEATURES.index(name) for name in ("log_away_days", "log_visits"))
Said = dict[str, npt.NDArray[np.float64]]


def measure(log: Log) -> tuple[Said, npt.NDArray[np.bool_]]:
    """What each model said of the moments asked, by name, and whether the shopper came back.

    Raises:
        DataError: the log is too short, or everybody does the same.
    """
    last_ms = int(log.times_ms.max()) + 1 - WINDOW_MS
    first_ms = last_ms - ASKED_MS
    learned = moments_to_learn(log, first_ms)
    model = fit_return(log, first_ms)
    if model is None:
        raise DataError("the log is shorter than 67 days: no moment's window is over before the first one asked")
    came_then = comes_back(log, learned)
    if came_then.all() or not came_then.any():
        raise DataError("everybody comes back, or nobody does; nothing to tell apart")
    pair = [RECENCY, FREQUENCY]
    baseline = fit_logistic(features_of(log, learned)[:, pair], came_then)
    asked = return_moments(log, first_ms, last_ms)
    features = features_of(log, asked)
    said = {
        "Braid": model.probability(features),
        "recency and frequency": baseline.probability(features[:, pair]),
    }
    return said, comes_back(log, asked)


def table(name: str, figures: dict[str, Forecast]) -> Table:
    """One row a model."""
    rows = tuple(
        (
            model,
            f"{row.count:,}",
            f"{row.rate:.3f}",
            f"{row.said:.3f}",
            f"{row.auc:.4f}",
            f"{row.error:.4f}",
            f"{row.log_loss:.4f}",
            f"{row.explained:.1%}",
        )
        for model, row in figures.items()
    )
    columns = ("model", "moments", "came back", "said", "AUC", "calibration error", "log loss", "of base rate gone")
    return Table(title=f"{name}: another visit within 30 days", columns=columns, rows=rows)


def plot(path: Path, said: Said, came: npt.NDArray[np.bool_]) -> None:
    """Reliability of each model."""
    canvas = Figure(figsize=(5, 5))
    axes = canvas.subplots()
    for model, chances in said.items():
        curve = reliability_curve(chances, came)
        axes.plot(curve.said, curve.came, marker="o", label=f"{model}, error {curve.error:.4f}")
    axes.plot([0, 1], [0, 1], "k--", linewidth=1)
    axes.set(xlabel="chance said", ylabel="share that came back")
    axes.legend()
    save(canvas, path)


def main(
    data: Annotated[str, typer.Option(help="folder of the data set, or `simulated`")] = SIMULATED,
    protocol: Annotated[SplitBy, typer.Option(help="of Amazon Beauty")] = SplitBy.LEAVE_ONE_OUT,
) -> None:
    """Measures the chance of coming back."""
    try:
        task = open_task(data, protocol)
        said, came = measure(task.log)
    except DataError as error:
        sys.exit(str(error))
    figures = {model: forecast(chances, came) for model, chances in said.items()}
    folder = CACHE / task.name
    folder.mkdir(parents=True, exist_ok=True)
    found = table(task.name, figures)
    console.print(found.rich())
    (folder / "returning.md").write_text(found.markdown())
    values = {model: asdict(row) for model, row in figures.items()}
    (folder / "returning.json").write_text(json.dumps(values, indent=1) + "\n")
    plot(folder / "returning.png", said, came)
    console.print(f"{folder / 'returning.md'}, {folder / 'returning.png'}")


if __name__ == "__main__":
    typer.run(main)
