"""Searches for a better configuration on the validation moments: what `python -m training tune` runs.

The test moments are never looked at. A search is kept in the shop's database (`training.studies`) and goes on when the
same study is named again.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.importance import get_param_importances
from optuna.trial import FixedTrial, FrozenTrial, TrialState
from rich.table import Table

from features.settings import Settings
from training.config import Config
from training.configuration_file import write_configuration
from training.dataset import DataError, Log, read_log
from training.evaluate import Protocol, Stage, split_times, stage_by_time
from training.fit import Fitted, fit
from training.moments import Moments
from training.pipeline import Split
from training.search_space import Sampler, Value, searched, suggest
from training.search_workers import Task, run_workers
from training.studies import open_study, opened_storage

SHOWN = 4
MIN_IMPORTANCE_TRIALS = 20
"""With fewer finished trials the best tenth, which importance is read from, is a single trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one call may spend.

    trials: in all. minutes: after which none is begun. epochs: of each trial, at most. workers: processes that share
    the trials. threads: CPU threads of each.
    """

    trials: int
    minutes: float
    epochs: int
    workers: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a study knows after a call.

    best: finished trials, best first. stopped, failed: trials that were stopped early, and that ended in an error or
    were killed. importances: share of each setting, by name; empty with few trials.
    """

    study: str
    config: Config
    best: list[FrozenTrial]
    stopped: int
    failed: int
    importances: dict[str, float]


def tune(
    settings: Settings,
    offline: Path,
    budget: Budget,
    protocol: Protocol,
    *,
    sampler: Sampler = Sampler.TPE,
    study_name: str | None = None,
    test_from_ms: int | None = None,
    fit_model: Callable[..., Fitted] = fit,
) -> Found:
    """Runs trials, or more of them, and writes the best configuration to `configuration_path`.

    Args:
        offline: folder of `events.parquet`, `items.parquet`, `users.parquet`.
        protocol: which validation moments count, as for training.
        study_name: by default named for the data window.
        test_from_ms: moments from here on are not looked at; by default the last tenth.
        fit_model: what a trial runs, picklable.

    Raises:
        DataError: the files cannot be trained on, hold no moments to validate on, or no trial came to its end.
        DatabaseError: see `opened_storage`.
        ValueError: the study was made on other data or otherwise, or a value is out of range.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    usual = Config()
    # epochs alone limit a trial: by the clock, figures would depend on what else the machine does
    base = replace(usual, fit=replace(usual.fit, epochs=budget.epochs, max_minutes=budget.minutes))
    stage, exam = validation_stage(*read_log(offline), protocol, test_from_ms)
    name = study_name or f"{exam['from'][:10]}-to-{exam['test_from'][:10]}-{exam['events']}-events"
    with opened_storage(settings.log_url) as storage:
        study = open_study(storage, name, exam | {"epochs": budget.epochs}, searched(base))
        task = Task(
            log_url=settings.log_url,
            study=name,
            stage=stage,
            base=base,
            fit=fit_model,
            sampler=sampler,
            drawn=len(study.get_trials(deepcopy=False)),
            threads=budget.threads,
            deadline_s=time.monotonic() + budget.minutes * 60,
        )
        run_workers(task, study, workers=budget.workers, trials=budget.trials, logs=settings.logs)
        lasting = replace(base, fit=replace(base.fit, max_minutes=usual.fit.max_minutes))
        found = _found(study, lasting, settings.logs)
    write_configuration(configuration_path(settings), found.config)
    return found


def configuration_path(settings: Settings) -> Path:
    """Where the best configuration is written."""
    return settings.home / "training" / "configuration.json"


def validation_stage(
    log: Log, moments: Moments, protocol: Protocol, test_from_ms: int | None
) -> tuple[Stage, dict[str, Any]]:
    """What every trial learns from and is asked; and what makes figures comparable: data window and protocol.

    Raises:
        DataError: no moment would be asked.
    """
    split = Split(*split_times(moments, test_from_ms))
    window = split.describe(log)
    stage = stage_by_time(log, moments, split.validation_from_ms, split.test_from_ms, protocol)
    if not len(stage.test.moments):
        raise DataError(
            f"nothing to validate on: no such moment from {window['validation_from']} to {window['test_from']}; "
            "import more events, or move --test-from"
        )
    asked = {
        "moments": protocol.moments.value,
        "min_item_moments": protocol.min_item_moments,
        "known_shoppers": protocol.known_shoppers,
    }
    return stage, window | asked


def found_line(found: Found) -> str:
    """How many trials ended how; stands above the table, whose own title would wrap at its width."""
    return f"validation, study {found.study}: {len(found.best)} finished, {found.stopped} stopped early"


def found_table(found: Found) -> Table:
    """A row for each setting, a column for each of the best trials; usual values and importances beside them."""
    shown = found.best[:SHOWN]
    table = Table()
    table.add_column("", no_wrap=True)
    for heading in ("usual", *(f"trial {trial.number}" for trial in shown)):
        table.add_column(heading, justify="right")
    if found.importances:
        table.add_column("importance", justify="right")
    table.add_row("NDCG@10", "", *(f"{trial.value:.4f}" for trial in shown), style="bold", end_section=True)
    usual = searched(Config())
    for name in sorted(usual, key=lambda name: -found.importances.get(name, 0.0)):
        share = [f"{found.importances[name]:.0%}"] if found.importances else []
        table.add_row(name, _short(usual[name]), *(_short(trial.params[name]) for trial in shown), *share)
    return table


def _found(study: optuna.Study, base: Config, logs: Path) -> Found:
    trials = study.get_trials(deepcopy=False)
    count = {state: sum(trial.state is state for trial in trials) for state in TrialState}
    finished = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if not finished:
        raise DataError(
            f"study {study.study_name!r}: no trial came to its end, {count[TrialState.FAIL]} failed; give it more "
            f"--minutes, or see {logs}/tune-*.log"
        )
    best = sorted(finished, key=lambda trial: (-(trial.value or 0.0), trial.number))
    return Found(
        study=study.study_name,
        config=suggest(FixedTrial(best[0].params), base),
        best=best,
        stopped=count[TrialState.PRUNED],
        failed=count[TrialState.FAIL],
        importances=_importances(study) if len(finished) >= MIN_IMPORTANCE_TRIALS else {},
    )


def _importances(study: optuna.Study) -> dict[str, float]:
    """PED-ANOVA (IJCAI 2023, arXiv 2304.10255), over the finished trials."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few trials: the importances are then equal, as the table shows
        return get_param_importances(study)


def _short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
