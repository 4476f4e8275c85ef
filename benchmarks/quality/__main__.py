"""How good the recommendations are, beside simple methods and ablations, on one set of data.

    python -m benchmarks.quality --data <folder> [--models baselines,ours,ablations,peer] [--seeds 3] [--device cpu]

The set is told by its files: `ml-1m.txt.gz`; `interactions.parquet` with `item2attributes.json` (Amazon Beauty, also
with `--protocol time`); `train_sessions.txt.gz` with `test_prefix_target.txt.gz` (Diginetica, RetailRocket);
`online_retail.parquet`; or a shop's offline folder. `--data simulated` simulates a shop first. Every figure is of a
ranking of all items. Each model and seed runs once; the same command goes on where it was stopped. Tables, results.md,
results.json and plots go into benchmarks/results/quality/<task>/.
"""

from __future__ import annotations

import signal
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.quality.folders import CACHE, SplitBy, open_task
from benchmarks.quality.measured import compare, measure_models
from benchmarks.quality.plots import write_plots
from benchmarks.quality.tables import tables, write
from benchmarks.quality.variants import chosen
from benchmarks.quality.worker import BenchError
from features.terminal import console
from training.configuration_file import read_configuration
from training.dataset import DataError


class Device(str, Enum):
    """Where our models are fitted."""

    CPU = "cpu"
    CUDA = "cuda"


def main(
    data: Annotated[str, typer.Option(help="folder of the data set, or `simulated`")],
    models: Annotated[str, typer.Option(help="names and groups: baselines, ours, ablations, peer")] = "baselines,ours",
    seeds: Annotated[int, typer.Option(min=1, help="runs of each model that draws")] = 3,
    device: Annotated[Device, typer.Option()] = Device.CPU,
    protocol: Annotated[SplitBy, typer.Option(help="of Amazon Beauty")] = SplitBy.LEAVE_ONE_OUT,
    configuration: Annotated[
        Path | None, typer.Option(help="of our models, as `python -m training tune` writes it; default: the task's")
    ] = None,
) -> None:
    """Measures models on a set of data and compares them."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the model under way ends too
    try:
        names = chosen(models)
        config = read_configuration(configuration) if configuration else None
        task = open_task(data, protocol)
        console.print(f"{task.name}: " + ", ".join(f"{count:,} {name}" for name, count in task.sizes().items()))
        measured = measure_models(
            task, names, seeds=seeds, data=data, split_by=protocol, device=device.value, cache=CACHE, config=config
        )
    except (DataError, ValueError, BenchError) as error:
        sys.exit(str(error))
    compared = compare(task, measured)
    for table in tables(task, measured, compared):
        console.print(table.rich())
    folder = CACHE / task.name
    write(folder, task, measured, compared)
    write_plots(folder, task, measured)
    console.print(f"{folder / 'results.md'}")


if __name__ == "__main__":
    typer.run(main)
