"""RecTools' SASRec sits the same exam as our methods: a Stage goes out as files, its ranking comes back as one.

The exchange folder, items and shoppers by their index in the log:

    train.parquet    user int64, item int32, order int64: the learned events, each shopper's in order
    ask.parquet      moment int32, items list<int32>: everything of the shopper before each moment that is asked, in
                     order; for `choose_epochs` also targets list<int32>
    allowed.npy      bool (N,), what may be ranked
    settings.json    `PeerSettings`, and whether seen items are masked
    ranked.npy, report.json    the answers, written by sasrec.py

Events on items that the catalogue does not know are left out. A moment is a user of its own to RecTools, so sessions
that begin after the split are asked like shoppers who were trained on.

The tests use a stand-in for the peer, since its environment is heavy. The real one end to end, with its environment:

    python -m benchmarks.quality.peer.speed --data <folder of amazon-beauty>
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from benchmarks.peer_environment import PeerError
from benchmarks.quality.peer.environment import rectools_python
from training.evaluate import Stage, seen_items
from training.moments import Ints

SCRIPT = Path(__file__).with_name("sasrec.py")
TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings:
    """SASRec (arXiv 1808.09781) as RecTools builds it: `SASRecModel`, Adam with betas (0.9, 0.98).

    max_length: the newest events of a shopper that are learned from and read; every batch is padded to it.
    patience: epochs without a better NDCG@10 after which `choose_epochs` stops.
    batch: shoppers a step.
    loss: over all items (2309.07602), or over the target and `negatives` items drawn evenly.
    share: of an epoch's batches that are trained on; less than all only to measure time.
    """

    dim: int = 64
    layers: int = 2
    heads: int = 1
    dropout: float = 0.2
    max_length: int = 50
    epochs: int = 20
    patience: int = 5
    batch: int = 128
    learning_rate: float = 1e-3
    loss: Literal["softmax", "sampled_softmax"] = "softmax"
    negatives: int = 256
    share: float = 1.0
    seed: int = 0
    threads: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerResult:
    """What the peer answered.

    ranked: int32 (E, 20), best first; -1 where nothing is left to recommend, or nothing known of the moment.
    epochs: after how many epochs.
    seconds_by_epoch, cpu_seconds_by_epoch: training alone, of every epoch that was run; CPU seconds of all threads.
    peak_bytes: resident memory of the process.
    versions: of Python, RecTools, torch and what else decides.
    """

    ranked: Ints
    epochs: int
    seconds_by_epoch: tuple[float, ...]
    cpu_seconds_by_epoch: tuple[float, ...]
    parameters: int
    peak_bytes: int
    versions: dict[str, str]


def run_peer(stage: Stage, settings: PeerSettings, folder: Path, *, python: Path | None = None) -> PeerResult:
    """Trains on what the stage lets learn, for exactly `settings.epochs`, and ranks its moments.

    Args:
        folder: the exchange folder; made where it is missing.
        python: an interpreter with requirements.txt installed; by default .venv-peer's.

    Raises:
        PeerError: the environment cannot be made, or the script failed.
    """
    write_exchange(stage, settings, folder)
    return _answers(folder, settings, python)


def choose_epochs(tuning: Stage, settings: PeerSettings, folder: Path, *, python: Path | None = None) -> PeerResult:
    """The same, ranked after every epoch up to `settings.epochs`: the answers of the epoch with the best NDCG@10.

    For a stage that is not the one reported: its targets are read to choose.
    """
    write_exchange(tuning, settings, folder, with_targets=True)
    return _answers(folder, settings, python)


def write_exchange(stage: Stage, settings: PeerSettings, folder: Path, *, with_targets: bool = False) -> None:
    """Writes what the script reads, as the module's docstring says; earlier answers are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("ranked.npy", "report.json"):
        (folder / name).unlink(missing_ok=True)
    log, test = stage.log, stage.test
    counts = np.diff(log.starts)
    users = np.repeat(np.arange(len(counts)), counts)
    learned = stage.learn & (log.items >= 0)
    order = np.arange(len(log.items)) - log.starts[users]
    pl.DataFrame({"user": users[learned], "item": log.items[learned], "order": order[learned]}).write_parquet(
        folder / "train.parquet"
    )
    row, item = seen_items(log, test.moments)
    ask = pl.DataFrame({"moment": pl.int_range(len(test.moments), dtype=pl.Int32, eager=True)})
    ask = ask.with_columns(items=_lists(row, item, len(ask)))
    if with_targets:
        row = np.repeat(np.arange(len(ask)), np.diff(test.moments.offsets))
        ask = ask.with_columns(targets=_lists(row, test.moments.targets, len(ask)))
    ask.write_parquet(folder / "ask.parquet")
    np.save(folder / "allowed.npy", test.allowed)
    values = asdict(settings) | {"seen_masked": test.seen_masked}
    (folder / "settings.json").write_text(json.dumps(values, indent=2) + "\n")


def _lists(row: Any, item: Any, count: int) -> pl.Series:
    """Flat items, sorted by row, as one list a row."""
    bounds = np.searchsorted(row, np.arange(count + 1))
    parts = [item[start:end] for start, end in zip(bounds[:-1], bounds[1:], strict=True)]
    return pl.Series([part.tolist() for part in parts], dtype=pl.List(pl.Int32))


def _answers(folder: Path, settings: PeerSettings, python: Path | None) -> PeerResult:
    """Runs the script and reads what it wrote."""
    command = [str(python or rectools_python()), "-I", str(SCRIPT), str(folder)]
    _run(command, os.environ | {"OMP_NUM_THREADS": str(settings.threads)})
    report = json.loads((folder / "report.json").read_text())
    report |= {name: tuple(report[name]) for name in ("seconds_by_epoch", "cpu_seconds_by_epoch")}
    return PeerResult(ranked=np.load(folder / "ranked.npy"), **report)


def _run(command: list[str], environment: dict[str, str]) -> None:
    """Passes on what the command says while it runs."""
    said = b""
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stderr is not None
        while chunk := os.read(process.stderr.fileno(), TAIL_BYTES):
            sys.stderr.write(chunk.decode(errors="replace"))
            sys.stderr.flush()
            said = (said + chunk)[-TAIL_BYTES:]
    if process.returncode:
        reason = said.decode(errors="replace").strip().splitlines()
        raise PeerError(
            f"`{' '.join(command)}` ended with {process.returncode}: {reason[-1] if reason else 'no reason given'}. "
            "Where a module is missing, remove .venv-peer: the next run makes it anew"
        )
