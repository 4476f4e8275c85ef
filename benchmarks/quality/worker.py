"""Fits one model and asks it, in a process of its own: memory is then the model's, and goes back when it is done."""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality.folders import open_task
from benchmarks.quality.peer.run import PeerSettings, choose_epochs, run_peer
from benchmarks.quality.ranking import Answers, answer
from benchmarks.quality.results import Job, Result, load, save
from benchmarks.quality.task import Task
from benchmarks.quality.variants import PEERS
from training.baselines import BASELINES, tune
from training.config import Config
from training.fit import fit
from training.scoring import ModelScorer

TUNING_MOMENTS = 2_000
"""Validation moments on which a baseline's settings are compared."""


class BenchError(Exception):
    """A model could not be measured; the message names it."""


def result_of(job: Job, task: Task) -> Result:
    """The kept result of a job, else that of a new process.

    Raises:
        BenchError: the process failed.
    """
    path = job.path(task)
    found = load(path)
    if found is None:
        process = multiprocessing.get_context("spawn").Process(target=work, args=(job,))
        process.start()
        try:
            process.join()
        finally:
            process.terminate()  # where waiting for it was cut short
        found = load(path)
        if found is None:
            raise BenchError(
                f"{job.model}, seed {job.seed}: its process ended with exit code {process.exitcode}, the reason stands "
                "above; the same command goes on with what is missing"
            )
    return found


def work(job: Job) -> None:
    """Reads the data, fits, asks, and keeps the result."""
    task = open_task(job.data, job.split_by, job.cache)
    path = job.path(task)
    path.parent.mkdir(parents=True, exist_ok=True)
    if job.model in PEERS:
        answers, facts = _peer(job, task, path)
    else:
        answers, facts = _baseline(job, task) if job.model in BASELINES else _ours(job, task, path)
        facts["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    save(path, Result(answers=answers, facts=facts))


def _baseline(job: Job, task: Task) -> tuple[Answers, dict[str, Any]]:
    baseline = BASELINES[job.model]
    begin = time.monotonic()
    setting = tune(baseline, task.tuning, sample=TUNING_MOMENTS)
    tuned = time.monotonic()
    scorer = baseline.fit(task.final, setting)
    fitted = time.monotonic()
    answers = answer(scorer, task.final, gives_probabilities=False)
    return answers, {
        "setting": dict(setting),
        "tuning_seconds": tuned - begin,
        "seconds": fitted - tuned,
        "ranking_seconds": time.monotonic() - fitted,
    }


def _peer(job: Job, task: Task, path: Path) -> tuple[Answers, dict[str, Any]]:
    """Validation chooses the epochs, then the peer is fitted anew on the final stage. Memory is its own process's."""
    folder = path.with_suffix(".peer")
    settings = PeerSettings(**job.identity["peer"])
    chosen = choose_epochs(task.tuning, settings, folder)
    found = run_peer(task.final, replace(settings, epochs=chosen.epochs), folder)
    shutil.rmtree(folder)
    return Answers(ranked=found.ranked, probabilities=None), {
        "settings": job.identity["peer"],
        "epochs": found.epochs,
        "tuning_seconds": sum(chosen.seconds_by_epoch),
        "seconds": sum(found.seconds_by_epoch),
        "parameters": found.parameters,
        "peak_bytes": found.peak_bytes,
        "versions": found.versions,
    }


def _ours(job: Job, task: Task, path: Path) -> tuple[Answers, dict[str, Any]]:
    """Our model; its weights are kept beside the result."""
    config = Config.from_dict(job.identity["configuration"])
    folder = path.with_suffix(".fit")
    fitted = fit(task.tuning, task.final, config, folder=folder, device=job.device)
    begin = time.monotonic()
    answers = answer(ModelScorer(fitted.model, task.log, device=job.device), task.final, gives_probabilities=True)
    torch.save(fitted.model.to("cpu").state_dict(), path.with_suffix(".pt"))
    shutil.rmtree(folder)
    return answers, {
        "configuration": config.to_dict(),
        "seconds": fitted.seconds,
        "ranking_seconds": time.monotonic() - begin,
        "parameters": sum(weight.numel() for weight in fitted.model.parameters()),
        "validation_ndcg@10": fitted.best,
        "history": fitted.history,
    }
