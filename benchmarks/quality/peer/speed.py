"""Seconds of a training epoch: RecTools' SASRec and our model of the same size, in turns in one run on the CPU.

    python -m benchmarks.quality.peer.speed --data <folder> [--length 50] [--share 0.05] [--rounds 2]

Both have the full softmax over all items, the same dimension, layers, heads, dropout and threads, read as many events,
and take as many steps an epoch. Of an epoch only a share is run; seconds of a step, times the steps of an epoch, are
the figure. Each turn begins with an epoch that is not counted; ours, whose steps are short, runs ten times the share,
so that what it does once an epoch (a checkpoint, for one) weighs little. Our model is one strand alone, without
content, time and repeat term; the strand is told by its length. Only an idle machine gives a sound ratio: on a busy one
CPU seconds, of all threads, spread less than seconds, but they too are far from steady.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
import typer
from rich.table import Table

from benchmarks import record
from benchmarks.peer_environment import PeerError
from benchmarks.quality.folders import SplitBy, open_task
from benchmarks.quality.peer.environment import rectools_python
from benchmarks.quality.peer.run import PeerSettings, run_peer
from features.schema import HISTORY_EVENTS, RECENT_EVENTS
from features.terminal import console
from training.config import Config, FitConfig, ModelConfig
from training.dataset import DataError
from training.evaluate import Stage
from training.fit import fit

COUNTED = 2
"""Epochs of a turn that count."""
ASKED = 256
"""Moments that the peer ranks after a turn, to end it."""
PEER, OURS = "RecTools", "ours"
OUR_SHARES = 10
"""Times the share that ours runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Means of the steps of each counted epoch. peak_bytes: None where the process holds more than the model."""

    seconds: list[float]
    cpu_seconds: list[float]
    parameters: int
    peak_bytes: int | None


def steps(stage: Stage, settings: PeerSettings) -> int:
    """Batches of a whole epoch: shoppers with two learned events or more, `settings.batch` at a time."""
    counts = np.add.reduceat(np.append(stage.learn, False).astype(np.int64), stage.log.starts[:-1])
    return math.ceil(int((counts > 1).sum()) / settings.batch)


def time_peer(stage: Stage, settings: PeerSettings, folder: Path) -> Turn:
    """One turn of RecTools."""
    asked = replace(stage, test=stage.test.sample(ASKED))
    result = run_peer(asked, replace(settings, epochs=1 + COUNTED), folder)
    run = int(steps(stage, settings) * settings.share)
    return Turn(
        seconds=[spent / run for spent in result.seconds_by_epoch[1:]],
        cpu_seconds=[spent / run for spent in result.cpu_seconds_by_epoch[1:]],
        parameters=result.parameters,
        peak_bytes=result.peak_bytes,
    )


def time_ours(stage: Stage, settings: PeerSettings, folder: Path) -> Turn:
    """One turn of ours: the moments of a share of the shoppers, drawn at random, in as many steps."""
    torch.set_num_threads(settings.threads)
    whole = steps(stage, settings)
    batch, run = math.ceil(len(stage.moments) / whole), OUR_SHARES * int(whole * settings.share)
    learners = np.unique(stage.moments.shoppers)
    drawn = np.random.default_rng(settings.seed).permutation(learners)[: run * settings.batch]
    moments = stage.moments.take(np.flatnonzero(np.isin(stage.moments.shoppers, drawn)))
    nothing = np.zeros(0, np.int64)
    test = replace(stage.test, moments=stage.test.moments.take(nothing), repeated=stage.test.repeated[nothing])
    ended: list[tuple[float, float]] = []
    fitted = fit(
        replace(stage, moments=moments, test=test),
        None,
        config(settings, batch=batch),
        folder=folder,
        watch=lambda *_: ended.append((time.perf_counter(), time.process_time())),
    )
    spent = np.diff(ended, axis=0) / math.ceil(len(moments) / batch)
    return Turn(
        seconds=spent[:, 0].tolist(),
        cpu_seconds=spent[:, 1].tolist(),
        parameters=sum(weight.numel() for weight in fitted.model.parameters()),
        peak_bytes=None,
    )


def config(settings: PeerSettings, *, batch: int) -> Config:
    """One strand of ours of the peer's size, `batch` moments a step."""
    long = settings.max_length == HISTORY_EVENTS
    return Config(
        model=ModelConfig(
            dim=settings.dim,
            heads=settings.heads,
            long_layers=settings.layers,
            short_layers=settings.layers,
            dropout=settings.dropout,
            long=long,
            short=not long,
            content=False,
            time=False,
            repeat=False,
        ),
        fit=FitConfig(
            seed=settings.seed,
            epochs=1 + COUNTED,
            patience=1 + COUNTED,
            max_minutes=60.0,
            batch_examples=batch,
            segment_examples=settings.max_length,
            learning_rate=settings.learning_rate,
            drop_long=0.0,
            drop_recent=0.0,
            drop_codes=0.0,
            late_materialization=0.0,
        ),
    )


def main(
    data: Annotated[str, typer.Option(help="folder of the data set, or `simulated`")],
    length: Annotated[int, typer.Option(help=f"events read: {RECENT_EVENTS} or {HISTORY_EVENTS}")] = RECENT_EVENTS,
    share: Annotated[float, typer.Option(min=0.01, max=1.0, help="of an epoch that is run")] = 0.05,
    rounds: Annotated[int, typer.Option(min=1)] = 2,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Measures both in turns and compares the medians."""
    if length not in (RECENT_EVENTS, HISTORY_EVENTS):
        sys.exit(f"--length {length}: our strands read {RECENT_EVENTS} or {HISTORY_EVENTS} events")
    settings = PeerSettings(max_length=length, share=share, threads=threads)
    turns: dict[str, list[Turn]] = {PEER: [], OURS: []}
    try:
        stage = open_task(data, SplitBy.LEAVE_ONE_OUT).tuning
        if not int(steps(stage, settings) * share):
            sys.exit(f"--share {share}: not one of an epoch's {steps(stage, settings)} batches; give more")
        rectools_python()
        with TemporaryDirectory() as folder:
            for _ in range(rounds):
                turns[PEER].append(time_peer(stage, settings, Path(folder, "peer")))
                turns[OURS].append(time_ours(stage, settings, Path(folder, "ours")))
    except (DataError, PeerError) as error:
        sys.exit(str(error))
    report(stage, settings, turns)


def report(stage: Stage, settings: PeerSettings, turns: dict[str, list[Turn]]) -> None:
    """Prints the medians with their ratio, and keeps them."""
    whole = steps(stage, settings)
    seconds = {name: [step for turn in own for step in turn.seconds] for name, own in turns.items()}
    cpu_seconds = {name: [step for turn in own for step in turn.cpu_seconds] for name, own in turns.items()}
    table = Table("", "s/step", "s/epoch", "CPU s/step", "CPU s/epoch", "parameters", "memory")
    for name, own in turns.items():
        middle, cpu, peak = median(seconds[name]), median(cpu_seconds[name]), own[-1].peak_bytes
        memory = f"{peak / 2**30:.1f} GB" if peak else ""
        figures = (f"{middle:.3f}", f"{middle * whole:.0f}", f"{cpu:.3f}", f"{cpu * whole:.0f}")
        table.add_row(name, *figures, f"{own[-1].parameters:,}", memory)
    ratio, cpu_ratio = (median(of[PEER]) / median(of[OURS]) for of in (seconds, cpu_seconds))
    console.print(table)
    console.print(
        f"{whole} steps an epoch, length {settings.max_length}; RecTools takes {ratio:.1f} times as long, "
        f"{cpu_ratio:.1f} times the CPU seconds"
    )
    measured = {"length": settings.max_length, "threads": settings.threads, "steps": whole}
    kept = measured | {"step_seconds": seconds, "step_cpu_seconds": cpu_seconds, "ratio": ratio, "cpu_ratio": cpu_ratio}
    console.print(f"{record.write('peer-speed', kept)}")


if __name__ == "__main__":
    typer.run(main)
