"""From the offline files to a trained, measured model: what `python -m training train` and `evaluate` run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from training.baselines import measure_baselines
from training.batches import BatchMaker
from training.config import Config
from training.dataset import Log, read_log
from training.evaluate import Protocol, TestSet, make_test_set, measure, rank_with_model, split_times
from training.fit import POPULARITY_DAYS, fit
from training.fusion import FusionModel
from training.moments import Ints, Moments, popularity_scores
from training.report import Figures, write_figures
from training.samples import serving_inputs
from training.trained import TrainedModel, release_items

SAMPLES = 16
BASELINE_SAMPLE = 800
END_OF_TIME_MS = 1 << 60
VARIANTS: dict[str, dict[str, bool]] = {
    "fusion": {"use_long": True, "use_recent": True},
    "long-term only": {"use_long": True, "use_recent": False},
    "recent only": {"use_long": False, "use_recent": True},
}
"""The model, and the same model with either strand left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
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
    """
    log, moments = read_log(offline)
    validation_from_ms, test_from_ms = split_times(moments, test_from_ms)
    split = Split(validation_from_ms=validation_from_ms, test_from_ms=test_from_ms)
    folder.mkdir(parents=True, exist_ok=True)
    fitted = fit(
        log,
        moments,
        config,
        validation_from_ms=validation_from_ms,
        test_from_ms=test_from_ms,
        folder=folder,
        resume=resume,
    )
    measured = _measure(fitted.model, log, moments, split, protocol, folder)
    trained = TrainedModel(
        model=fitted.model,
        config=config,
        items=release_items(log.catalogue, fitted.content, popularity_scores(moments, log.item_count, POPULARITY_DAYS)),
        content=fitted.content,
        codes=log.vocabularies,
        samples=real_samples(fitted.model, log, moments),
        report={
            "data_window": split.describe(log),
            "metrics": measured["fusion"],
            "variants": {name: measured[name] for name in VARIANTS},
            "baselines": {name: row for name, row in measured.items() if name not in VARIANTS},
            "history": fitted.history,
        },
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
    """
    log, moments = read_log(offline, trained.codes, trained.items)
    if test_from_ms is None:
        test_from_ms = int(datetime.fromisoformat(trained.report["data_window"]["test_from"]).timestamp() * 1000)
    validation_from_ms, _ = split_times(moments, test_from_ms)
    split = Split(validation_from_ms=validation_from_ms, test_from_ms=test_from_ms)
    return _measure(trained.model, log, moments, split, protocol, folder)


def _measure(
    model: FusionModel, log: Log, moments: Moments, split: Split, protocol: Protocol, folder: Path
) -> dict[str, dict[str, float]]:
    test = make_test_set(log, moments, split.test_from_ms, END_OF_TIME_MS, protocol)
    before = replace(protocol, sample=BASELINE_SAMPLE)
    checked = make_test_set(log, moments, split.validation_from_ms, split.test_from_ms, before)
    ranked = rank_variants(model, log, test)
    figures = {name: measure(test, items) for name, items in ranked.items()}
    figures |= measure_baselines(log, moments, checked, split.validation_from_ms, test, split.test_from_ms)
    write_figures(folder, figures)
    predictions(log, test, ranked["fusion"]).write_parquet(folder / "predictions.parquet")
    return figures


def rank_variants(model: FusionModel, log: Log, test: TestSet) -> dict[str, Ints]:
    """What the fused model ranks best, and what the same model does with either strand alone, int32 (E, 10)."""
    maker = BatchMaker(log, test.moments)
    return {name: rank_with_model(model, maker, test.allowed, **use) for name, use in VARIANTS.items()}


def predictions(log: Log, test: TestSet, ranked: Ints) -> pl.DataFrame:
    """The test moments with shopper, time_ms, bought and recommended (item ids, best first)."""
    ids = log.catalogue["item_id"]
    moments = test.moments
    return pl.DataFrame(
        {
            "shopper": [log.shopper_ids[row] for row in moments.shoppers],
            "time_ms": moments.times_ms,
            "bought": [ids.gather(moments.targets_of(row)).to_list() for row in range(len(moments))],
            "recommended": [ids.gather(row).to_list() for row in ranked],
        },
        schema_overrides={"bought": pl.List(pl.String), "recommended": pl.List(pl.String)},
    )


def real_samples(model: FusionModel, log: Log, moments: Moments) -> dict[str, np.ndarray[Any, Any]]:
    """The newest moments as requests; empty without any."""
    newest = moments.take(np.arange(max(len(moments) - SAMPLES, 0), len(moments)))
    for batch in BatchMaker(log, newest).batches(batch_examples=SAMPLES):
        return serving_inputs(model, batch)
    return {}


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, tz=timezone.utc).isoformat(timespec="seconds")
