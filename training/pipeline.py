"""From the offline files to a trained, measured model: what `python -m training train` and `evaluate` run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.inputs.outcome_features import relative_popularity
from features.inputs.probabilities import Probabilities
from features.locks import LockTaken, file_locked
from training.baselines import BASELINES, measure_baselines
from training.config import Config
from training.dataset import DataError, Log, read_log
from training.evaluate import Protocol, Stage, measure, rank, split_times, stage_by_time
from training.fit import POPULARITY_DAYS, fit
from training.fusion import FusionModel
from training.moments import END_OF_TIME_MS, Ints, Moments, popularity_scores
from training.outcomes import calibrate
from training.report import Figures, write_figures
from training.returning import fit_return
from training.samples import serving_inputs
from training.scoring import ModelScorer
from training.trained import TrainedModel, release_items

SAMPLES = 16
VARIANTS = {"fusion": (True, True), "long-term only": (True, False), "recent only": (False, True)}
"""The model, and the same model with either strand left out."""


@dataclass(frozen=True, slots=True)
class Split:
    """Where validation and test begin."""

    validation_from_ms: int
    test_from_ms: int

    def describe(self, log: Log) -> dict[str, Any]:
        """The manifest's data window."""
        return {
            "from": _iso(int(log.times_ms.min())),
            "validation_from": _iso(self.validation_from_ms),
            "test_from": _iso(self.test_from_ms),
            "to": _iso(int(log.times_ms.max())),
            "events": len(log.items),
            "shoppers": len(log.shopper_ids),
        }


def train(
    offline: Path, folder: Path, config: Config, protocol: Protocol, *, test_from_ms: int | None, resume: bool
) -> TrainedModel:
    """Fits, measures and saves a model.

    Args:
        offline: folder of `events.parquet`, `items.parquet`, `users.parquet`.
        folder: gets the run: checkpoint, TensorBoard log, trained model, figures and predictions.
        test_from_ms: moments from here on are never learned from; by default the last tenth.

    Raises:
        DataError: there is nothing to learn from, or another training writes into the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with file_locked(folder / "run.lock", wait=False):
            return _train(offline, folder, config, protocol, test_from_ms, resume)
    except LockTaken:
        raise DataError(
            f"another training writes into {folder}; wait for its end, or give this one a folder with --run"
        ) from None


def _train(
    offline: Path, folder: Path, config: Config, protocol: Protocol, test_from_ms: int | None, resume: bool
) -> TrainedModel:
    log, moments = read_log(offline)
    if test_from_ms is not None and not len(moments.known_by(test_from_ms)):
        raise DataError(
            f"--test-from {_iso(test_from_ms)}: there is nothing before it to learn from; give a later date, the log "
            f"goes from {_iso(int(log.times_ms.min()))} to {_iso(int(log.times_ms.max()))}"
        )
    split = Split(*split_times(moments, test_from_ms))
    tuning, final = stages(log, moments, split, protocol)
    fitted = fit(tuning, final, config, folder=folder, resume=resume)
    measured = measure_model(fitted.model, tuning, final, folder)
    trained = TrainedModel(
        model=fitted.model,
        config=config,
        items=release_items(log.catalogue, fitted.content, popularity_scores(moments, log.item_count, POPULARITY_DAYS)),
        content=fitted.content,
        codes=log.vocabularies,
        samples=real_samples(fitted.model, log, moments),
        probabilities=probabilities(fitted.held_out, tuning, split),
        report=report(split.describe(log) | {"targets": moments.of}, measured, fitted.history),
    )
    trained.save(folder)
    return trained


def evaluate(
    offline: Path, folder: Path, trained: TrainedModel, protocol: Protocol, *, test_from_ms: int | None
) -> Figures:
    """Measures a trained model again, beside the baselines; figures and predictions go into `folder`.

    Args:
        test_from_ms: by default where the run's own test begins.

    Returns:
        Figures by model name: the fused model first, then either strand alone, then the baselines.

    Raises:
        DataError: the model has learned what it would be asked.
    """
    log, moments = read_log(offline, trained.codes, trained.items)
    learned_to_ms = int(datetime.fromisoformat(trained.report["data_window"]["test_from"]).timestamp() * 1000)
    if test_from_ms is None:
        test_from_ms = learned_to_ms
    elif test_from_ms < learned_to_ms:
        raise DataError(
            f"--test-from {_iso(test_from_ms)}: the model has learned what was before {_iso(learned_to_ms)}; give that "
            "or a later date, or train with `--test-from` to measure on earlier ones"
        )
    split = Split(*split_times(moments, test_from_ms))
    return measure_model(trained.model, *stages(log, moments, split, protocol), folder)


def stages(log: Log, moments: Moments, split: Split, protocol: Protocol) -> tuple[Stage, Stage]:
    """What is tuned on (the moments between both splits), and what is measured on (those after)."""
    return (
        stage_by_time(log, moments, split.validation_from_ms, split.test_from_ms, protocol),
        stage_by_time(log, moments, split.test_from_ms, END_OF_TIME_MS, protocol),
    )


def measure_model(
    model: FusionModel, tuning: Stage, final: Stage, folder: Path, beside: Mapping[str, FusionModel] | None = None
) -> Figures:
    """Figures of the model, of either strand alone, of other models beside it and of the baselines, by name.

    They are written into the folder, with the model's predictions.
    """
    ranked = {
        name: rank(ModelScorer(model, final.log, use_long=use_long, use_recent=use_recent), final)
        for name, (use_long, use_recent) in VARIANTS.items()
    }
    ranked |= {name: rank(ModelScorer(other, final.log), final) for name, other in (beside or {}).items()}
    figures = {name: measure(final.test, items) for name, items in ranked.items()}
    figures |= measure_baselines(tuning, final)
    write_figures(folder, figures)
    predictions(final, ranked["fusion"]).write_parquet(folder / "predictions.parquet")
    return figures


def report(data_window: dict[str, Any], measured: Figures, history: list[dict[str, float]]) -> dict[str, Any]:
    """What a run tells of itself."""
    return {
        "data_window": data_window,
        "metrics": measured["fusion"],
        "variants": {name: row for name, row in measured.items() if name not in BASELINES},
        "baselines": {name: row for name, row in measured.items() if name in BASELINES},
        "history": history,
    }


def predictions(stage: Stage, ranked: Ints) -> pl.DataFrame:
    """The moments asked, with shopper, time_ms, bought and recommended (item ids, best first)."""
    log, moments = stage.log, stage.test.moments
    ids = log.catalogue["item_id"]
    return pl.DataFrame(
        {
            "shopper": [log.shopper_ids[row] for row in moments.shoppers],
            "time_ms": moments.times_ms,
            "bought": [ids.gather(moments.targets_of(row)).to_list() for row in range(len(moments))],
            "recommended": [ids.gather(row).to_list() for row in ranked],
        },
        schema_overrides={"bought": pl.List(pl.String), "recommended": pl.List(pl.String)},
    )


def probabilities(held_out: FusionModel, tuning: Stage, split: Split) -> Probabilities:
    """What the run can say of chances, learned from nothing that happened after the test begins.

    Args:
        held_out: the model as it was before it learned from the validation moments.
    """
    log = tuning.log
    popularity = relative_popularity(popularity_scores(tuning.moments, log.item_count, POPULARITY_DAYS))
    return Probabilities(
        outcomes=calibrate(held_out, log, popularity, split.validation_from_ms, split.test_from_ms),
        comes_back=fit_return(log, split.test_from_ms),
    )


def real_samples(model: FusionModel, log: Log, moments: Moments) -> dict[str, np.ndarray[Any, Any]]:
    """The newest moments as requests; empty without any."""
    newest = moments.take(np.arange(max(len(moments) - SAMPLES, 0), len(moments)))
    return serving_inputs(model, log, newest) if len(newest) else {}


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, tz=timezone.utc).isoformat(timespec="seconds")
