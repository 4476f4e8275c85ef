"""What a training run leaves behind, as a folder: all that export needs, without the log.

`weights.pt` (state and configuration), `items.parquet` (the catalogue in index order), `vocabulary.json`,
`probabilities.json`, `samples.npz` (real inputs for the gate) and `report.json` (metrics, baselines, data window).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from features.inputs.codes import CodeVocabularies
from features.inputs.content import ContentVocabulary, content_codes
from features.inputs.probabilities import Probabilities
from features.releases.release import (
    ReleaseError,
    content_matrix,
    read_probabilities,
    read_vocabulary,
    write_vocabulary,
)
from features.schema import PROBABILITIES_FILE, WEIGHTS_FILE
from training.config import Config
from training.dataset import DataError
from training.fusion import FusionModel
from training.item_tower import ItemTower
from training.whole_file import write_whole

CHECKPOINT_FILE = "checkpoint.pt"
"""Lies in the folder as well, rewritten after each epoch: newer than the weights where a run was not finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A fitted model with its catalogue and vocabularies.

    items: columns of `features.releases.release.ITEM_COLUMNS` but `bias`. samples: as
    `training.samples.serving_inputs` makes.
    report: data_window, metrics, baselines, history.
    """

    model: FusionModel
    config: Config
    items: pl.DataFrame
    content: ContentVocabulary
    codes: CodeVocabularies
    samples: dict[str, npt.NDArray[Any]]
    probabilities: Probabilities
    report: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Writes the folder; `weights.pt` comes last, so a folder that has it is whole."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / WEIGHTS_FILE).unlink(missing_ok=True)
        self.items.write_parquet(folder / "items.parquet")
        write_vocabulary(folder / "vocabulary.json", self.content, self.codes)
        (folder / PROBABILITIES_FILE).write_text(json.dumps(self.probabilities.to_json()))
        np.savez(folder / "samples.npz", **self.samples)  # type: ignore[arg-type]
        (folder / "report.json").write_text(json.dumps(self.report, indent=2))
        self.save_weights(folder / WEIGHTS_FILE)

    def save_weights(self, path: Path) -> None:
        """Writes state and configuration, tensors and plain values alone: read with `weights_only`."""
        stored = {"state": self.model.state_dict(), "config": self.config.to_dict()}
        write_whole(path, lambda file: torch.save(stored, file))


def load_trained(folder: Path) -> TrainedModel:
    """Reads what `TrainedModel.save` wrote.

    Raises:
        DataError: there is no finished run in the folder, or one of another version.
    """
    if not (folder / WEIGHTS_FILE).exists():
        raise DataError(f"{folder / WEIGHTS_FILE} is missing; run `python -m training train` first")
    stored = torch.load(folder / WEIGHTS_FILE, weights_only=True)
    try:
        config = Config.from_dict(stored["config"])
    except (TypeError, ValueError) as error:
        raise DataError(f"{folder / WEIGHTS_FILE}: {error}; run `python -m training train` again") from None
    items = pl.read_parquet(folder / "items.parquet")
    content, codes = read_vocabulary(folder / "vocabulary.json")
    try:
        probabilities = read_probabilities(folder / PROBABILITIES_FILE)
    except ReleaseError as error:
        raise DataError(f"{error}; run `python -m training train` again") from None
    tower = ItemTower(
        torch.from_numpy(content_matrix(items)),
        torch.zeros(items.height),
        content.size,
        config.model.dim,
        config.model.content,
    )
    model = FusionModel(config.model, tower, codes)
    try:
        model.load_state_dict(stored["state"])
    except RuntimeError:
        raise DataError(
            f"{folder / WEIGHTS_FILE} was made by another version; run `python -m training train` again"
        ) from None
    with np.load(folder / "samples.npz") as samples:
        return TrainedModel(
            model=model.eval(),
            config=config,
            items=items,
            content=content,
            codes=codes,
            probabilities=probabilities,
            samples={name: samples[name] for name in samples.files},
            report=json.loads((folder / "report.json").read_text()),
        )


def ended_time(folder: Path) -> datetime:
    """When the run whose weights lie in the folder ended."""
    return _written_time(folder / WEIGHTS_FILE)


def unfinished_time(folder: Path) -> datetime | None:
    """Up to when the folder keeps a run that was not finished, and that can be resumed; None if there is none."""
    checkpoint, weights = folder / CHECKPOINT_FILE, folder / WEIGHTS_FILE
    if not checkpoint.exists():
        return None
    kept = _written_time(checkpoint)
    return None if weights.exists() and _written_time(weights) >= kept else kept


def _written_time(file: Path) -> datetime:
    return datetime.fromtimestamp(file.stat().st_mtime, tz=timezone.utc)


def release_items(
    catalogue: pl.DataFrame, vocabulary: ContentVocabulary, popularity: npt.NDArray[np.float64]
) -> pl.DataFrame:
    """The catalogue as a release keeps it, with content codes and popularity (N,)."""
    codes = content_codes(catalogue, vocabulary)
    return catalogue.select("item_id", "title", "category_path", "brand", "price").with_columns(
        popularity=pl.Series(popularity, dtype=pl.Float64), content=pl.Series(codes.tolist(), dtype=pl.List(pl.Int32))
    )
