"""The gate that a candidate passes before anything serves it: whole files, finite scores, and TorchScript that says
what the eager module says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from features.releases.release import ReleaseError, read_release
from features.schema import FUSION_INPUTS, FUSION_OUTPUTS, MODULE_FILE, TOP_ITEMS
from training.export import REFUSED_SCORE, FusionServing, TowerServing, load_module
from training.samples import random_inputs
from training.trained import TrainedModel

TOLERANCE = 1e-4
"""Largest difference between eager module and TorchScript, on scores, vectors and weights."""


class GateError(ReleaseError):
    """The candidate must not be served; the message says what it did."""


def check_candidate(trained: TrainedModel, fusion: Path, item_tower: Path) -> float:
    """Checks the files of a candidate and runs its modules beside the eager ones.

    Returns:
        The largest difference found.

    Raises:
        GateError: outputs differ by more than `TOLERANCE`, are not finite, or name items that do not exist.
        ReleaseError: a file is missing or does not match its checksum.
    """
    read_release(fusion)
    eager, scripted = FusionServing(trained.model).eval(), load_module(fusion / MODULE_FILE)
    worst = 0.0
    for label, inputs in _inputs(trained):
        tensors = [torch.from_numpy(inputs[tensor.name]) for tensor in FUSION_INPUTS]
        with torch.inference_mode():
            expected, given = eager(*tensors), scripted(*tensors)
        for tensor, left, right in zip(FUSION_OUTPUTS, expected, given, strict=True):
            if tensor.name == "top_items":
                _check_items(label, right, trained.items.height)
            else:
                worst = max(worst, _difference(f"{label} {tensor.name}", left, right))
    content = torch.from_numpy(np.asarray(trained.items["content"].to_list(), np.int32))
    tower = load_module(item_tower / MODULE_FILE)
    with torch.inference_mode():
        for left, right in zip(TowerServing(trained.model).eval()(content), tower(content), strict=True):
            worst = max(worst, _difference("item tower", left, right))
    return worst


def _inputs(trained: TrainedModel) -> Iterator[tuple[str, dict[str, npt.NDArray[Any]]]]:
    sizes = trained.model.code_sizes
    for count in (1, 8):
        yield (
            f"random inputs of batch {count}",
            random_inputs(
                trained.config.model.dim, trained.items.height, trained.content.size, sizes, count, seed=count
            ),
        )
    if trained.samples and len(trained.samples["long_mask"]):
        yield "real inputs", trained.samples


def _difference(label: str, expected: torch.Tensor, given: torch.Tensor) -> float:
    if expected.shape != given.shape:
        raise GateError(f"{label}: shape {tuple(given.shape)}, the eager module gives {tuple(expected.shape)}")
    if not bool(torch.isfinite(given).all()):
        raise GateError(
            f"{label}: not all finite; train again with a lower fit.learning_rate: "
            "`python -m training train --configuration FILE`"
        )
    kept = expected > REFUSED_SCORE
    difference = float((expected - given)[kept].abs().max()) if bool(kept.any()) else 0.0
    if difference > TOLERANCE:
        raise GateError(f"{label}: TorchScript differs from the eager module by {difference:.2e}, at most {TOLERANCE}")
    return difference


def _check_items(label: str, items: torch.Tensor, count: int) -> None:
    if items.shape[1] != TOP_ITEMS or bool((items >= count).any()) or bool((items < -1).any()):
        raise GateError(f"{label}: top_items {tuple(items.shape)} with indices beyond the {count} items")
