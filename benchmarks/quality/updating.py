"""What it is worth to keep a model current: NDCG@10 by day, updated every day, trained anew every week, or left alone.

    python -m benchmarks.quality.updating --data simulated [--days 14]

`--data` takes a shop's offline folder, `simulated`, or the folder of Online Retail. The last days of the log are
replayed. At each midnight a model may learn what was before, less the last day, which the gate would measure on; then
it is asked every purchase of the day, over all items. One model is trained before the first day: one method leaves it
alone, one goes on with it every midnight as `python -m training update` does, one trains anew every seventh day. What a
shopper did is known to all of them up to the moment. The catalogue is known from the start: an item without events
stands by its content. Fitted models are kept, so that a run that was stopped goes on. Writes updating.md,
updating.json and updating.png into benchmarks/results/quality/<set>/.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import typer
from matplotlib.figure import Figure
from tqdm import tqdm

from benchmarks.quality.bootstrap import Interval, differences
from benchmarks.quality.configurations import configuration
from benchmarks.quality.figures import moment_figures
from benchmarks.quality.folders import CACHE, SplitBy, open_task
from benchmarks.quality.online_retail import NAME as ONLINE_RETAIL
from benchmarks.quality.plots import save
from benchmarks.quality.results import FORMAT
from benchmarks.quality.shop import PROTOCOL
from benchmarks.quality.task import Task
from benchmarks.record import machine
from benchmarks.table import Table
from features.terminal import console
from training.batches import BatchMaker
from training.config import Config
from training.dataset import DataError, Log, read_log
from training.evaluate import rank, split_times, stage_by_time
from training.fit import MORE_EPOCHS, build_model, fit, go_on
from training.fusion import FusionModel
from training.metrics import mean_of_shoppers
from training.moments import DAY_MS, Moments
from training.scoring import ModelScorer
from training.whole_file import write_whole

NEVER, WEEKLY, DAILY = METHODS = ("left alone", "trained weekly", "updated daily")
WEEK = 7
FIGURE = "ndcg@10"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One day's moments with each method's figure of each, (E,), and the seconds spent on its model before."""

    midnight_ms: int
    shoppers: npt.NDArray[np.int64]
    figures: dict[str, Floats]
    seconds: dict[str, float]

    @property
    def name(self) -> str:
        """The date."""
        return _date(self.midnight_ms)

    def mean(self, method: str) -> float:
        """The mean over shoppers."""
        return mean_of_shoppers(self.figures[method], self.shoppers)


class Shop:
    """A log with the models that it had been possible to fit by a midnight."""

    def __init__(self, log: Log, moments: Moments, config: Config, folder: Path) -> None:
        """`folder` keeps the models; it is this log's and this configuration's own."""
        self.log, self.moments, self.config, self.folder = log, moments, config, folder

    def trained(self, midnight_ms: int) -> tuple[FusionModel, float]:
        """A model trained anew, and the seconds that took."""
        test_from_ms = midnight_ms - DAY_MS
        validation_from_ms, _ = split_times(self.moments, test_from_ms)
        tuning = stage_by_time(self.log, self.moments, validation_from_ms, test_from_ms, PROTOCOL)
        final = stage_by_time(self.log, self.moments, test_from_ms, midnight_ms, PROTOCOL)

        def make() -> tuple[FusionModel, float]:
            fitted = fit(tuning, final, self.config, folder=self.folder / "fit")
            return fitted.model, fitted.seconds

        return self._kept(self.folder / f"trained-{_date(midnight_ms)}.pt", build_model(tuning, self.config)[0], make)

    def updated(self, model: FusionModel, midnight_ms: int, first_ms: int) -> float:
        """Goes on with a model of the midnight before, itself; the seconds that took. `first_ms` is its chain's."""

        def make() -> tuple[FusionModel, float]:
            begin = time.monotonic()
            stage = stage_by_time(self.log, self.moments, midnight_ms - DAY_MS, midnight_ms, PROTOCOL)
            since_ms = midnight_ms - 2 * DAY_MS
            if len(stage.moments.between(since_ms, midnight_ms)):
                go_on(model, stage, since_ms, self.config, folder=self.folder)
            return model, time.monotonic() - begin

        return self._kept(self.folder / f"updated-{_date(first_ms)}-{_date(midnight_ms)}.pt", model, make)[1]

    def _kept(
        self, path: Path, model: FusionModel, make: Callable[[], tuple[FusionModel, float]]
    ) -> tuple[FusionModel, float]:
        """What an earlier run kept, in the model given, or what is made now and kept."""
        if path.exists():
            kept = torch.load(path, weights_only=True)
            model.load_state_dict(kept["state"])
            return model.eval(), kept["seconds"]
        made, seconds = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: torch.save({"state": made.state_dict(), "seconds": seconds}, file))
        return made, seconds


def replay(shop: Shop, days: int) -> list[Day]:
    """The last days with purchases on them, in order.

    Raises:
        DataError: the log does not reach back far enough.
    """
    last_ms = int(shop.log.times_ms.max()) // DAY_MS * DAY_MS
    first_ms = last_ms - (days - 1) * DAY_MS
    if len(shop.moments.between(0, first_ms - DAY_MS)) < len(shop.moments) / 2:
        raise DataError(f"--days {days}: less than half of the purchases are before; take fewer")
    trained, training_s = shop.trained(first_ms)
    models = dict.fromkeys(METHODS, trained)
    models[DAILY] = shop.trained(first_ms)[0]  # one of its own: it changes
    maker = BatchMaker.of(trained, shop.log)
    found = []
    for midnight_ms in tqdm(range(first_ms, last_ms + 1, DAY_MS), desc="days", unit="day"):
        seconds = dict.fromkeys(METHODS, training_s if midnight_ms == first_ms else 0.0)
        if midnight_ms > first_ms:
            seconds[DAILY] = shop.updated(models[DAILY], midnight_ms, first_ms)
            if (midnight_ms - first_ms) % (WEEK * DAY_MS) == 0:
                models[WEEKLY], seconds[WEEKLY] = shop.trained(midnight_ms)
        stage = stage_by_time(shop.log, shop.moments, midnight_ms, midnight_ms + DAY_MS, PROTOCOL)
        figures: dict[str, Floats] = {}
        for method, model in models.items() if len(stage.test.moments) else ():
            same = [figures[other] for other in figures if models[other] is model]
            ranked = None if same else rank(ModelScorer(model, shop.log, maker=maker), stage)
            figures[method] = same[0] if ranked is None else moment_figures(stage.test, ranked)[0][FIGURE]
        found.append(
            Day(midnight_ms=midnight_ms, shoppers=stage.test.moments.shoppers, figures=figures, seconds=seconds)
        )
    return found


def compare(days: list[Day]) -> dict[str, Interval]:
    """Gains of all days but the first, on which all methods are one model, by their names."""
    asked = [day for day in days[1:] if day.figures]
    shoppers = np.concatenate([day.shoppers for day in asked])
    each = {method: np.concatenate([day.figures[method] for day in asked]) for method in METHODS}
    pairs = [(DAILY, NEVER), (DAILY, WEEKLY), (WEEKLY, NEVER)]
    gains = differences(np.stack([each[one] - each[other] for one, other in pairs]), shoppers, mean_of_shoppers=True)
    return {f"{one} over {other}": gain for (one, other), gain in zip(pairs, gains, strict=True)}


def tables(name: str, days: list[Day]) -> list[Table]:
    """NDCG@10 by day, and what each method gained and cost."""
    asked = [day for day in days if day.figures]
    by_day = [(day.name, f"{len(day.shoppers):,}", *(f"{day.mean(method):.4f}" for method in METHODS)) for day in asked]
    costs = [
        (method, *(f"{value:,.1f}" for value in (_spent(days, method), _spent(days[1:], method)))) for method in METHODS
    ]
    gains = [(pair, gain.text()) for pair, gain in compare(days).items()]
    return [
        Table(title=f"{name}: {FIGURE} by day", columns=("day", "moments", *METHODS), rows=tuple(by_day)),
        Table(
            title=f"{name}: {FIGURE} from the second day on, 95% interval of the paired bootstrap over shoppers",
            columns=("methods", "gain"),
            rows=tuple(gains),
        ),
        Table(
            title=f"{name}: seconds spent on fitting",
            columns=("method", "in all", "from the second day on"),
            rows=tuple(costs),
        ),
    ]


def write(folder: Path, name: str, days: list[Day]) -> None:
    """Writes updating.md, updating.json and updating.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "updating.md").write_text("\n".join(table.markdown() for table in tables(name, days)))
    asked = [day for day in days if day.figures]
    values = {
        "machine": machine(),
        "epochs": MORE_EPOCHS,
        "days": [
            {"day": day.name, "moments": len(day.shoppers), FIGURE: {method: day.mean(method) for method in METHODS}}
            for day in asked
        ],
        "seconds": {day.name: day.seconds for day in days},
        "gains": {pair: asdict(gain) for pair, gain in compare(days).items()},
    }
    (folder / "updating.json").write_text(json.dumps(values, indent=1) + "\n")
    canvas = Figure(figsize=(8, 4))
    axes = canvas.subplots()
    for method in METHODS:
        axes.plot([day.name[5:] for day in asked], [day.mean(method) for day in asked], marker="o", label=method)
    axes.set(xlabel="day", ylabel=FIGURE, title=name)
    axes.tick_params(axis="x", rotation=60)
    axes.legend()
    save(canvas, folder / "updating.png")


def open_shop(task: Task, config: Config) -> Shop:
    """The whole log behind a task.

    Raises:
        DataError: the set is no shop's.
    """
    folder = CACHE / ONLINE_RETAIL / "offline" if task.name == ONLINE_RETAIL else task.files[0].parent
    if task.files[0].name != "events.parquet" and task.name != ONLINE_RETAIL:
        raise DataError(f"{task.name}: no events of a shop; give a shop's offline folder, Online Retail or `simulated`")
    log, moments = read_log(folder)
    parts = {"format": FORMAT, "files": [path.stat().st_size for path in task.files], "epochs": MORE_EPOCHS}
    digest = hashlib.sha256(json.dumps(parts | config.to_dict(), sort_keys=True).encode()).hexdigest()[:16]
    return Shop(log, moments, config, CACHE / task.name / "updating" / digest)


def _spent(days: list[Day], method: str) -> float:
    return sum(day.seconds[method] for day in days)


def _date(midnight_ms: int) -> str:
    return datetime.fromtimestamp(midnight_ms / 1000, tz=timezone.utc).strftime("%Y-%m-%d")


def main(
    data: Annotated[str, typer.Option(help="folder of the data set, or `simulated`")],
    days: Annotated[int, typer.Option(min=2, help="days that are replayed, the last of the log")] = 14,
) -> None:
    """Measures what daily updates and weekly training are worth."""
    try:
        task = open_task(data, SplitBy.LEAVE_ONE_OUT)
        found = replay(open_shop(task, configuration(task.name)), days)
    except DataError as error:
        sys.exit(str(error))
    for table in tables(task.name, found):
        console.print(table.rich())
    write(CACHE / task.name, task.name, found)
    console.print(f"{CACHE / task.name / 'updating.md'}")


if __name__ == "__main__":
    typer.run(main)
