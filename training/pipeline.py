"""From the offline files to a trained, measured model: what `python -m training train` and `evaluate` run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from training.baselines import measure_baselines, popularity_scores
from training.batches import BatchMaker
from training.config import Config
from training.dataset import Log, read_log
from training.evaluate import Protocol, TestSet, make_test_set, measure, rank_with_model, split_times
from training.fit import fit
from training.fusion import FusionModel
from training.moments import Moments
from training.samples import serving_inputs
from training.trained import TrainedModel, release_items

SAMPLES = 16
BASELINE_SAMPLE = 800
END_OF_TIME_MS = 1 << 60
POPULARITY_DAYS = 30.0


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
        folder: gets the run: checkpoint, TensorBoard log and the trained model.
        test_from_ms: moments from here on are never learned from; by default the last tenth.
    """
    log, moments = read_log(offline)
    split = Split(**dict(zip(("validation_from_ms", "test_from_ms"), split_times(moments, test_from_ms), strict=True)))
    folder.mkdir(parents=True, exist_ok=True)
    fitted = fit(
        log,
        moments,
        config,
        validation_from_ms=split.validation_from_ms,
        test_from_ms=split.test_from_ms,
        folder=folder,
        resume=resume,
    )
    test = make_test_set(log, moments, split.test_from_ms, END_OF_TIME_MS, protocol)
    metrics = measure_model(fitted.model, log, test)
    before = replace(protocol, sample=BASELINE_SAMPLE)
    checked = make_test_set(log, moments, split.validation_from_ms, split.test_from_ms, before)
    trained = TrainedModel(
        model=fitted.model,
        config=config,
        items=release_items(log.catalogue, fitted.content, popularity_scores(moments, log.item_count, POPULARITY_DAYS)),
        content=fitted.content,
        codes=log.vocabularies,
        samples=real_samples(fitted.model, log, moments),
        report={
            "data_window": split.describe(log),
            "metrics": metrics["fusion"],
            "variants": metrics,
            "baselines": measure_baselines(log, moments, checked, split.validation_from_ms, test, split.test_from_ms),
            "history": fitted.history,
        },
    )
    trained.save(folder)
    return trained


def measure_model(model: FusionModel, log: Log, test: TestSet) -> dict[str, dict[str, float]]:
    """The fused model, and the same model with either strand alone."""
    maker = BatchMaker(log, test.moments)
    variants = {
        "fusion": {"use_long": True, "use_recent": True},
        "long-term only": {"use_long": True, "use_recent": False},
        "recent only": {"use_long": False, "use_recent": True},
    }
    return {name: measure(test, rank_with_model(model, maker, test.allowed, **use)) for name, use in variants.items()}


def real_samples(model: FusionModel, log: Log, moments: Moments) -> dict[str, np.ndarray[Any, Any]]:
    """The newest moments as requests; empty without any."""
    newest = moments.take(np.arange(max(len(moments) - SAMPLES, 0), len(moments)))
    for batch in BatchMaker(log, newest).batches(batch_examples=SAMPLES):
        return serving_inputs(model, batch)
    return {}


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, tz=timezone.utc).isoformat(timespec="seconds")
