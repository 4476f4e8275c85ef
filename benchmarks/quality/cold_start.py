"""What the first events of somebody unknown bring: the fused model after 0, 1, 2 and 5 of them, against popularity.

    python -m benchmarks.quality.cold_start --data simulated [--seed 0] [--device cpu]

A share of the shoppers is held out: nothing of them is learned. Of their visits in the test's time that begin with at
least five events, the first events are shown, as of somebody who has just come; what was bought in that visit is asked
for, over all items. What is popular is counted anew every midnight, by `features.offline.item_statistics` and the
gateway's `server.select.popularity`, in the whole shop and in the shopper's segment (country, time of day), from the
same shoppers. The bootstrap draws shoppers. Segments need a shop's users, so `--data` takes a shop's offline folder or
`simulated`. The fitted model is kept. Writes cold_start.md, cold_start.json and cold_start.png beside the others.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
import typer
from matplotlib.figure import Figure
from tqdm import tqdm

from benchmarks.quality.bootstrap import Interval, differences
from benchmarks.quality.figures import moment_figures
from benchmarks.quality.folders import CACHE, SplitBy, open_task
from benchmarks.quality.newcomers import HELD_OUT, SEED, Bools, Newcomers, held_out, without
from benchmarks.quality.plots import save
from benchmarks.quality.results import FORMAT, Job
from benchmarks.quality.task import Task
from benchmarks.quality.variants import FUSED
from benchmarks.record import machine
from benchmarks.table import Table
from features.offline.item_statistics import item_statistics, segments
from features.terminal import console
from server.select.popularity import Popularity, Segment
from training.config import Config
from training.dataset import DataError
from training.evaluate import RANKED, rank
from training.fit import build_model, fit
from training.fusion import FusionModel
from training.moments import DAY_MS, Ints
from training.scoring import ModelScorer
from training.whole_file import write_whole

SHOWN = (0, 1, 2, 5)
WHOLE, SEGMENT = "popular in the shop", "popular in the segment"
FIGURES = ("ndcg@10", "recall@10")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One method after so many events: means over shoppers, and its difference from the segment's popularity.

    unseen: of what was bought without being among the first five events.
    """

    method: str
    events: int
    ndcg: float
    recall: float
    unseen_ndcg: float
    gain: Interval | None
    """NDCG@10 over `SEGMENT`'s after as many events."""
    step: Interval | None
    """NDCG@10 over its own after the number of events before."""


def measure(task: Task, model: FusionModel, held: Bools, device: str) -> tuple[list[Line], int]:
    """A line for each method and number of events, and how many visits were asked."""
    newcomers = Newcomers.of(task, held, max(SHOWN))
    popularity = _popularity(task, held, newcomers)
    scorer = ModelScorer(model, newcomers.log, device=device, use_long=False)
    each: dict[tuple[str, int], dict[str, Floats]] = {}
    for events in tqdm(SHOWN, desc="events shown", leave=False):
        stage = newcomers.asked_after(events, task.final)
        for method, ranked in (
            (FUSED, rank(scorer, stage)),
            (WHOLE, _ranked(newcomers, popularity, events, in_segment=False)),
            (SEGMENT, _ranked(newcomers, popularity, events, in_segment=True)),
        ):
            figures, _ = moment_figures(stage.test, ranked)
            unseen, rows = moment_figures(stage.test, ranked, ~newcomers.seen)
            each[method, events] = {name: figures[name] for name in FIGURES} | {"unseen": unseen["ndcg@10"]}
    unseen_shoppers = newcomers.shoppers[rows]
    keys = list(each)
    pairs = [(key, (SEGMENT, key[1])) for key in keys if key[0] != SEGMENT]
    pairs += [((FUSED, now), (FUSED, before)) for before, now in zip(SHOWN, SHOWN[1:], strict=False)]
    found = differences(
        np.stack([each[one]["ndcg@10"] - each[other]["ndcg@10"] for one, other in pairs]),
        newcomers.shoppers,
        mean_of_shoppers=True,
    )
    compared = dict(zip(pairs, found, strict=True))
    previous = dict(zip(SHOWN[1:], SHOWN, strict=False))
    lines = [
        Line(
            method=method,
            events=events,
            ndcg=_mean(values["ndcg@10"], newcomers.shoppers),
            recall=_mean(values["recall@10"], newcomers.shoppers),
            unseen_ndcg=_mean(values["unseen"], unseen_shoppers),
            gain=compared.get(((method, events), (SEGMENT, events))),
            step=compared.get(((method, events), (method, previous.get(events, -1)))),
        )
        for (method, events), values in each.items()
    ]
    return sorted(lines, key=lambda line: (keys.index((line.method, SHOWN[0])), line.events)), len(newcomers.shoppers)


def fitted(task: Task, job: Job, held: Bools) -> FusionModel:
    """The job's model, fitted without the held-out shoppers, or kept from before."""
    tuning, final = without(task.tuning, held), without(task.final, held)
    config = Config.from_dict(job.identity["configuration"])
    parts = {"format": FORMAT, "files": [path.stat().st_size for path in task.files], "held": [HELD_OUT, SEED]}
    digest = hashlib.sha256(json.dumps(parts | job.identity, sort_keys=True).encode()).hexdigest()[:16]
    path = CACHE / task.name / "cold_start" / f"{digest}.pt"
    if path.exists():
        model, _ = build_model(tuning, config)
        model.load_state_dict(torch.load(path, weights_only=True))
        return model
    model = fit(tuning, final, config, folder=path.with_suffix(".fit"), device=job.device).model.to("cpu")
    write_whole(path, lambda file: torch.save(model.state_dict(), file))
    return model


def _popularity(task: Task, held: Bools, newcomers: Newcomers) -> dict[int, Popularity]:
    """Day since the epoch to what was popular at its midnight, counted over the shoppers that are not held out."""
    files = {path.name: path for path in task.files}
    hidden = pl.Series([shopper for shopper, out in zip(task.log.shopper_ids, held, strict=True) if out])
    events = pl.scan_parquet(files["events.parquet"]).filter(~pl.col("shopper").is_in(hidden.implode())).collect()
    users = pl.read_parquet(files["users.parquet"])
    if "device" not in users.columns:
        users = users.with_columns(device=pl.lit(None, pl.String))
    row_of = task.log.catalogue.select("item_id", row=pl.int_range(pl.len(), dtype=pl.Int32))
    found = {}
    for day in tqdm(np.unique(newcomers.times_ms // DAY_MS).tolist(), desc="popularity by day", leave=False):
        midnight = day * DAY_MS
        before = events.lazy().filter(pl.col("event_time_ms") < midnight)
        statistics = item_statistics(before, task.log.catalogue, users, midnight).join(row_of, on="item_id")
        parts = {
            str(name): Segment.of(part["row"].to_list(), part["popularity"].to_list())
            for (name,), part in statistics.filter(pl.col("popularity") > 0).group_by("segment", maintain_order=True)
        }
        found[day] = Popularity.of(parts.pop(""), parts, np.zeros(0, np.int64), (0, 0, 0))
    return found


def _ranked(newcomers: Newcomers, popularity: dict[int, Popularity], events: int, *, in_segment: bool) -> Ints:
    """The most popular items, int32 (E, RANKED)."""
    everything = np.ones(newcomers.log.item_count, np.bool_)
    countries = {code: name for name, code in newcomers.log.vocabularies.country.items()}
    spelled = {name.lower(): name for part in popularity.values() for name in part.segments}
    ranked = np.full((len(newcomers.shoppers), RANKED), -1, np.int32)
    for row, time_ms in enumerate(newcomers.times_ms[:, events].tolist()):
        names = []
        if in_segment:
            country = countries.get(int(newcomers.log.codes[row, 2]), "")
            names = [spelled.get(name.lower(), name) for name in segments(country, "", time_ms)]
        rows, _, _ = popularity[time_ms // DAY_MS].best(names, None, everything, RANKED)
        ranked[row, : rows.size] = rows
    return ranked


def _mean(values: Floats, shoppers: npt.NDArray[np.int64]) -> float:
    _, row = np.unique(shoppers, return_inverse=True)
    return float((np.bincount(row, weights=values) / np.bincount(row)).mean())


def table(task: Task, lines: list[Line], visits: int) -> Table:
    """One row a line."""
    return Table(
        title=f"{task.name}: {visits:,} visits of shoppers that were held out",
        columns=("method", "events shown", *FIGURES, "ndcg@10 of unseen", "over the segment", "over fewer events"),
        rows=tuple(
            (
                line.method,
                str(line.events),
                f"{line.ndcg:.4f}",
                f"{line.recall:.4f}",
                f"{line.unseen_ndcg:.4f}",
                line.gain.text() if line.gain else "",
                line.step.text() if line.step else "",
            )
            for line in lines
        ),
    )


def write(folder: Path, task: Task, lines: list[Line], visits: int) -> None:
    """Writes cold_start.md, cold_start.json and cold_start.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cold_start.md").write_text(table(task, lines, visits).markdown())
    values = {"machine": machine(), "visits": visits, "lines": [asdict(line) for line in lines]}
    (folder / "cold_start.json").write_text(json.dumps(values, indent=1) + "\n")
    canvas = Figure(figsize=(6, 4))
    axes = canvas.subplots()
    for method in dict.fromkeys(line.method for line in lines):
        own = [line for line in lines if line.method == method]
        axes.plot([line.events for line in own], [line.ndcg for line in own], marker="o", label=method)
    axes.set(xlabel="events shown", ylabel="ndcg@10", ylim=(0, None), xticks=SHOWN, title=task.name)
    axes.legend()
    save(canvas, folder / "cold_start.png")


def main(
    data: Annotated[str, typer.Option(help="offline folder of a shop, or `simulated`")],
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Measures what the first events of unknown shoppers bring."""
    split_by = SplitBy.LEAVE_ONE_OUT
    try:
        task = open_task(data, split_by)
        if "users.parquet" not in {path.name for path in task.files}:
            raise DataError(f"{data}: no users.parquet, so no segments; give a shop's offline folder, or `simulated`")
        job = Job(data=data, split_by=split_by, cache=CACHE, task=task.name, model=FUSED, seed=seed, device=device)
        held = held_out(task.log)
        lines, visits = measure(task, fitted(task, job, held), held, device)
    except DataError as error:
        sys.exit(str(error))
    console.print(table(task, lines, visits).rich())
    write(CACHE / task.name, task, lines, visits)
    console.print(f"{CACHE / task.name / 'cold_start.md'}")


if __name__ == "__main__":
    typer.run(main)
