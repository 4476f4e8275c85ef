"""Whether the chances that `Rank` tells come true: each type of event, on moments of the test, by kind of candidate.

    python -m benchmarks.quality.chances [--data simulated]

`--data` is the home of a shop with a trained model (`python -m training train`), or `simulated`, which is built and
trained first. The calibration is the run's own, fitted on the validation moments by the model that has not learned from
them; asked are moments from the test on, three of four just after an event and the others at any time. Candidates are
what a search or advertising team would send: the model's best 100, popular items, the shopper's own, 100 drawn from
all. A small base rate makes a small error cheap, so AUC and the share of the base rate's log loss that is gone stand
beside it, and the error among the best ten and among the likeliest hundredth. Writes chances.md, chances.json and
chances.png into benchmarks/results/quality/<shop>/.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import typer
from matplotlib.figure import Figure

from benchmarks.quality.calibration import Forecast, forecast, reliability_curve
from benchmarks.quality.folders import CACHE, SIMULATED
from benchmarks.quality.plots import save
from benchmarks.quality.shop import simulate_shop
from benchmarks.table import Table
from features.inputs.outcome_features import relative_popularity
from features.schema import WEIGHTS_FILE, EventType
from features.settings import ROOT
from features.terminal import console
from training.asked import asked_moments
from training.dataset import DataError, read_log
from training.evaluate import split_times
from training.fit import POPULARITY_DAYS
from training.moments import popularity_scores
from training.outcomes import WINDOW_MS, Shelves, candidates, outcomes
from training.trained import load_trained

MOMENTS = 4000
SHELVES = Shelves(best=100, popular=20, any=100)
TARGET = 0.02
LIKELIEST = 0.01
Chances = dict[EventType, tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]]
"""What was said and what came, by type of event."""


def measure(home: Path) -> tuple[dict[str, dict[str, Forecast]], Chances]:
    """Figures by type of event and kind of candidate, and all that was said and came.

    Raises:
        DataError: nothing was trained, or nothing happened after the test begins.
    """
    trained = load_trained(home / "training")
    log, moments = read_log(home / "offline", trained.codes, trained.items)
    _, test_from_ms = split_times(moments, None)
    popularity = relative_popularity(
        popularity_scores(moments.between(0, test_from_ms), log.item_count, POPULARITY_DAYS)
    )
    asked = asked_moments(log, test_from_ms, int(log.times_ms.max()) + 1 - WINDOW_MS, MOMENTS, seed=5)
    if not len(asked):
        raise DataError(f"{home}: no moment of the test has a whole window behind it")
    found = list(candidates(trained.model, log, asked, popularity, SHELVES))
    features = np.concatenate([part.features for part in found])
    came = outcomes(log, asked, found)
    said: Chances = {
        kind: (model.probability(features), came[kind]) for kind, model in trained.probabilities.outcomes.items()
    }
    kinds = {
        "all candidates": np.ones(len(features), np.bool_),
        "model's best 10": np.concatenate([part.best_first < 10 for part in found]),
        "model's best 100": np.concatenate([part.best_first < 100 for part in found]),
        "shopper's own": np.concatenate([part.own for part in found]),
        "drawn from all": np.concatenate([part.drawn for part in found]),
    }
    figures = {}
    for kind, (chances, happened) in said.items():
        likeliest = np.argsort(-chances, kind="stable")[: max(int(len(chances) * LIKELIEST), 1)]
        rows = {name: forecast(chances[kept], happened[kept]) for name, kept in kinds.items()}
        rows["likeliest hundredth"] = forecast(chances[likeliest], happened[likeliest])
        figures[kind.name.lower()] = rows
    return figures, said


def tables(figures: dict[str, dict[str, Forecast]]) -> list[Table]:
    """One table a type of event."""
    columns = ("candidates", "pairs", "came", "said", "calibration error", "AUC", "log loss", "of base rate", "gone")
    return [
        Table(title=kind, columns=columns, rows=tuple((name, *_cells(row)) for name, row in rows.items()))
        for kind, rows in figures.items()
    ]


def plot(path: Path, said: Chances) -> None:
    """Reliability by type of event: bins of equally many pairs, the likeliest hundredth in bins of its own."""
    canvas = Figure(figsize=(5.5, 5.5))
    axes = canvas.subplots()
    for kind, (chances, came) in said.items():
        order = np.argsort(chances, kind="stable")
        cut = int(len(order) * (1 - LIKELIEST))
        curves = [reliability_curve(chances[part], came[part], 10) for part in (order[:cut], order[cut:])]
        axes.plot(
            np.concatenate([curve.said for curve in curves]),
            np.concatenate([curve.came for curve in curves]),
            marker="o",
            markersize=3,
            label=kind.name.lower(),
        )
    axes.plot([1e-5, 1], [1e-5, 1], "k--", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="chance said", ylabel="share that came", xlim=(1e-5, 1), ylim=(1e-5, 1))
    axes.legend()
    save(canvas, path)


def train_simulated() -> Path:
    """The home of the simulated shop, built and trained once.

    Raises:
        DataError: a command failed.
    """
    home = CACHE / SIMULATED / "home"
    simulate_shop(home)
    if not (home / "training" / WEIGHTS_FILE).exists():
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BRAID_")}
        command = [sys.executable, "-m", "training", "train"]
        if subprocess.run(command, cwd=ROOT, env=environment | {"BRAID_HOME": str(home)}).returncode:
            raise DataError("`python -m training train` failed; see above")
    return home


def main(
    data: Annotated[str, typer.Option(help="home of a shop with a trained model, or `simulated`")] = SIMULATED,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Measures the chances of a trained model on its test moments."""
    torch.set_num_threads(threads)
    try:
        home = train_simulated() if data == SIMULATED else Path(data)
        figures, said = measure(home)
    except DataError as error:
        sys.exit(str(error))
    folder = CACHE / (SIMULATED if data == SIMULATED else home.resolve().name)
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables(figures):
        console.print(table.rich())
    text = "\n".join(table.markdown() for table in tables(figures))
    (folder / "chances.md").write_text(f"# Chances, within a day of the moment\n\n{text}")
    values = {kind: {name: asdict(row) for name, row in rows.items()} for kind, rows in figures.items()}
    (folder / "chances.json").write_text(json.dumps(values, indent=1) + "\n")
    plot(folder / "chances.png", said)
    worst = max(row.error for rows in figures.values() for row in rows.values())
    verdict = "within" if worst <= TARGET else "above"
    console.print(f"The largest calibration error is {worst:.4f}, {verdict} the target of {TARGET}.")
    console.print(f"{folder / 'chances.md'}, {folder / 'chances.png'}")


def _cells(row: Forecast) -> tuple[str, ...]:
    return (
        f"{row.count:,}",
        f"{row.rate:.5f}",
        f"{row.said:.5f}",
        f"{row.error:.5f}",
        f"{row.auc:.3f}",
        f"{row.log_loss:.5f}",
        f"{row.base_log_loss:.5f}",
        f"{row.explained:.1%}",
    )


if __name__ == "__main__":
    typer.run(main)
