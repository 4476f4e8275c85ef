"""What a model takes over from a release: every weight, in a catalogue and in vocabularies that have grown since.

A row of an item goes by the item's id, a row of a code by the code, which stays. An item that is new has no id
embedding yet and stands by its content; a code that is new says nothing yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from features.inputs.codes import CodeVocabularies
from features.inputs.content import ContentVocabulary, fit_vocabulary
from features.inputs.probabilities import Probabilities
from features.releases.release import read_release
from features.schema import UNKNOWN, WEIGHTS_FILE
from training.config import Config
from training.dataset import DataError, Log
from training.fit import empty_model
from training.fusion import FusionModel

OF_ITEMS = ("tower.ids.weight", "tower.id_bias.weight")
"""Weights with a row for each item."""

OF_CODES = ("tower.codes.weight", "tower.code_bias.weight")
"""Weights with a row for each content code; those of shoppers and context are zero where nothing was learned."""

AFRESH = ("tower", "repeat", "transitions", "covisitation")
"""Parts whose buffers are counted from the log, not learned."""

LATER = "covisitation."
"""A part that releases of earlier versions lack; where it is not used, it says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A release as a start.

    items: as `features.releases.release.ITEM_COLUMNS`. learned_to_ms: events from here on are new to it.
    """

    number: int
    config: Config
    state: Mapping[str, Tensor]
    items: pl.DataFrame
    content: ContentVocabulary
    codes: CodeVocabularies
    probabilities: Probabilities
    learned_to_ms: int


def read_released(folder: Path) -> Released:
    """Reads and verifies a release.

    Raises:
        ReleaseError: a file is missing or changed.
        DataError: it holds no weights, or ones that this version cannot take over.
    """
    release = read_release(folder)
    path = folder / WEIGHTS_FILE
    again = "publish a model that this version trained: python -m training train, then publish"
    if WEIGHTS_FILE not in release.manifest.files:
        raise DataError(f"{path}: the release was published without its weights; {again}")
    stored = torch.load(path, weights_only=True)
    try:
        config = Config.from_dict(release.manifest.config)
        learned_to = datetime.fromisoformat(release.manifest.data_window["test_from"])
    except ValueError as error:
        raise DataError(f"{folder}: its configuration is not of this version: {error}; {again}") from None
    except KeyError as error:
        raise DataError(f"{folder}: its data window lacks {error}; {again}") from None
    return Released(
        number=release.manifest.release,
        config=config,
        state=stored["state"],
        items=release.items,
        content=release.content,
        codes=release.codes,
        probabilities=release.probabilities,
        learned_to_ms=int(learned_to.timestamp() * 1000),
    )


def warm_model(released: Released, log: Log) -> tuple[FusionModel, ContentVocabulary]:
    """The release's model over the log's catalogue and vocabularies, and its content vocabulary, grown.

    Buffers that are counted from the log are empty: `training.fit.take_note` fills them.

    Args:
        log: read with the release's codes, grown.

    Raises:
        DataError: the weights do not fit the configuration.
    """
    vocabulary = fit_vocabulary(log.catalogue, released.content)
    model = empty_model(log, vocabulary, released.config)
    rows = _rows_of(log.catalogue, released.items)
    counted = {f"{part}.{name}" for part in AFRESH for name, _ in model.get_submodule(part).named_buffers()}
    state = model.state_dict()
    unused = set() if released.config.model.covisitation else {name for name in state if name.startswith(LATER)}
    if missing := sorted((state.keys() ^ released.state.keys()) - unused):
        raise DataError(f"release {released.number}: weights and configuration differ in {missing[0]}; train anew")
    for name, value in state.items():
        if name in counted or name in unused:
            continue
        given = released.state[name]
        if given.shape[1:] != value.shape[1:] or (name not in OF_ITEMS and given.shape[:1] > value.shape[:1]):
            raise DataError(
                f"release {released.number}: {name} is {tuple(given.shape)}, its configuration asks for "
                f"{tuple(value.shape)}; train anew"
            )
        if name in OF_ITEMS:
            value.zero_()
            value[rows >= 0] = given[rows[rows >= 0]]
        elif value.ndim:
            if name in OF_CODES:
                value.zero_()
            value[: given.shape[0]] = given
        else:
            value.copy_(given)
    return model, vocabulary


def _rows_of(catalogue: pl.DataFrame, items: pl.DataFrame) -> Tensor:
    """(N,) the release's row of each item of the catalogue, `UNKNOWN` where it has none."""
    index = items.select("item_id", row=pl.int_range(pl.len(), dtype=pl.Int64))
    rows = catalogue.select("item_id").join(index, on="item_id", how="left", maintain_order="left")["row"]
    return torch.from_numpy(rows.fill_null(UNKNOWN).to_numpy().astype(np.int64))
