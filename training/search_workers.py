"""The processes of a search: each takes a trial of the shared study, fits it and goes on until the budget is spent."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.synchronize import Semaphore
from pathlib import Path

import optuna
import torch
from optuna.pruners import MedianPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState
from tqdm import tqdm

from training.config import Config
from training.evaluate import Stage
from training.fit import Fitted
from training.search_space import Sampler, suggest
from training.studies import opened_storage

POLL_S = 1.0
FULL_TRIALS = 5
"""Trials that run to their end before one is stopped early."""
FULL_EPOCHS = 2
"""Epochs before a trial may be stopped: in the first one the learning rate still rises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What every worker is given; it is pickled.

    base: what is not searched. fit: `training.fit.fit`, or what takes and gives the same. drawn: trials that the study
    held before, so that a resumed search draws anew. deadline_s: on `time.monotonic`'s clock, no trial is begun after.
    """

    log_url: str
    study: str
    stage: Stage
    base: Config
    fit: Callable[..., Fitted]
    sampler: Sampler
    drawn: int
    threads: int
    deadline_s: float


def run_workers(task: Task, study: optuna.Study, *, workers: int, trials: int, logs: Path) -> None:
    """Runs the task in so many processes, `trials` trials between them, and shows how far they are.

    A worker that dies leaves the rest to the others; its trial is failed once its heartbeat is old, and tried again.

    Args:
        logs: folder that gets what the workers print, `tune-N.log`.
    """
    spawned = multiprocessing.get_context("spawn")
    tickets = spawned.Semaphore(trials)
    logs.mkdir(parents=True, exist_ok=True)
    processes = [
        spawned.Process(target=_worker, args=(task, number, tickets, logs), daemon=True, name=f"worker {number}")
        for number in range(1, workers + 1)
    ]
    for process in processes:
        process.start()
    try:
        with tqdm(total=trials, desc="tuning", unit="trial") as bar:
            alive, before = processes, len(_ended(study))
            while alive:
                wait([process.sentinel for process in alive], timeout=POLL_S)
                alive = [process for process in alive if process.is_alive()]
                ended = _ended(study)
                best = max((_value(trial) for trial in ended), default=0.0)
                bar.set_postfix(best=f"{best:.4f}", refresh=sys.stderr.isatty())  # a clock on a terminal alone
                bar.update(len(ended) - before - bar.n)
        for number, process in enumerate(processes, 1):
            if process.exitcode:
                tqdm.write(f"{process.name} ended with code {process.exitcode}; see {_log(logs, number)}", sys.stderr)
    finally:
        for process in processes:  # still alive only where this process was interrupted
            process.terminate()
            process.join()


def work(task: Task, number: int, tickets: Semaphore) -> None:
    """Begins trials while there are tickets and time, and while the process that asked for them lives.

    Args:
        number: of the worker, from 1; each draws from a seed of its own.
    """
    torch.set_num_threads(task.threads)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    parent = multiprocessing.parent_process()
    with opened_storage(task.log_url) as storage:
        study = optuna.load_study(
            study_name=task.study,
            storage=storage,
            sampler=_sampler(task.sampler, seed=task.drawn * 1_000 + number),
            pruner=MedianPruner(n_startup_trials=FULL_TRIALS, n_warmup_steps=FULL_EPOCHS),
        )
        while (
            time.monotonic() < task.deadline_s
            and (parent is None or parent.is_alive())
            and tickets.acquire(block=False)
        ):
            # one configuration too many for the memory, torch.OutOfMemoryError, must not end the search
            study.optimize(lambda trial: _validation_figure(trial, task), n_trials=1, catch=(RuntimeError,))


def _validation_figure(trial: optuna.Trial, task: Task) -> float:
    """The best validation NDCG@10 of the trial's configuration; a hopeless one is stopped at the median (Vizier)."""

    def watch(epoch: int, figure: float) -> None:
        trial.report(figure, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned(f"epoch {epoch}: {figure:.4f} is below the median of the trials so far")

    config = suggest(trial, task.base)
    with tempfile.TemporaryDirectory(prefix="braid-tune-") as folder:
        return task.fit(task.stage, None, config, folder=Path(folder), watch=watch).best


def _worker(task: Task, number: int, tickets: Semaphore, logs: Path) -> None:
    with _log(logs, number).open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
    work(task, number, tickets)


def _sampler(sampler: Sampler, seed: int) -> BaseSampler:
    return RandomSampler(seed=seed) if sampler is Sampler.RANDOM else TPESampler(seed=seed)


def _ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _value(trial: optuna.trial.FrozenTrial) -> float:
    return trial.value or 0.0


def _log(logs: Path, number: int) -> Path:
    return logs / f"tune-{number}.log"
