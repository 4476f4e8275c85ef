"""Moments of the log as the tensors of a request: real inputs for the gate, and the check that serving and training
see the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from features.schema import CONTENT_TOKENS, OWN_FEATURES, OWN_ITEMS, PADDING, RECENT_EVENTS
from training.batches import Batch, BatchMaker
from training.dataset import Log
from training.fusion import FusionModel
from training.moments import Moments
from training.scoring import read_batch, scores_of


def serving_inputs(model: FusionModel, log: Log, moments: Moments) -> dict[str, npt.NDArray[Any]]:
    """`schema.FUSION_INPUTS` by name for B moments, and `expected_scores` (B, N), what training says."""
    model.eval()
    maker = BatchMaker(log, overlap=model.overlap)
    (batch,) = maker.batches(maker.ask(moments), batch_examples=len(moments))
    with torch.inference_mode():
        expected = scores_of(model, batch, read_batch(model, batch))
        vectors, _ = model.tower()
        table = torch.cat([vectors, torch.zeros(1, vectors.shape[1])])
        history = batch.history
        states = model.long(table[history.items.clamp(min=-1)], history.types, history.gaps)
        long = states[history.row, history.last] * batch.long_mask
    return request_inputs(batch, long.numpy()) | {"expected_scores": expected.numpy()}


def request_inputs(batch: Batch, long: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
    """`schema.FUSION_INPUTS` by name for the moments of a batch, all items allowed.

    Args:
        long: float32 (B, D), their long-term vectors.
    """
    count = len(batch.rows)
    recent, own = batch.seen_items.shape[1], batch.own_items.shape[1]
    codes = batch.codes.numpy().astype(np.int32)
    before = ((0, 0), (RECENT_EVENTS - recent, 0))
    behind = ((0, 0), (0, OWN_ITEMS - own))
    own_features = np.zeros((count, OWN_ITEMS, len(OWN_FEATURES)), np.float32)
    own_features[:, :own] = batch.own_features.numpy()
    return {
        "long_interest": long,
        "long_mask": batch.long_mask.numpy(),
        "long_age": batch.long_age.numpy(),
        "recent_items": np.pad(batch.seen_items.numpy(), before, constant_values=PADDING).astype(np.int32),
        "recent_types": np.pad(batch.seen_types.numpy(), before).astype(np.int32),
        "recent_ages": np.pad(batch.seen_ages.numpy(), before).astype(np.float32),
        "recent_content": np.zeros((count, RECENT_EVENTS, CONTENT_TOKENS), np.int32),
        "own_items": np.pad(batch.own_items.numpy(), behind, constant_values=PADDING).astype(np.int32),
        "own_features": own_features,
        "shopper": codes[:, :3],
        "context": codes[:, 3:],
        "allowed": np.zeros((count, 1), np.uint8),
        "candidates": np.zeros((count, 1), np.int32),
    }


def random_inputs(
    dim: int, items: int, content_codes: int, code_sizes: list[int], count: int, seed: int
) -> dict[str, npt.NDArray[Any]]:
    """`schema.FUSION_INPUTS` by name, drawn at random: half the sequences short, half the catalogue refused.

    Args:
        code_sizes: sizes of the six embeddings over shopper and context codes.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, RECENT_EVENTS + 1, (count, 1))
    present = np.arange(RECENT_EVENTS)[None, :] >= RECENT_EVENTS - lengths
    recent = rng.integers(-2, items, (count, RECENT_EVENTS))
    recent = np.where(recent == PADDING, -2, recent)
    unknown = (present & (recent == -2))[..., None]
    content = rng.integers(0, content_codes, (count, RECENT_EVENTS, CONTENT_TOKENS))
    ages = -np.sort(-(10 ** rng.uniform(0, 7, recent.shape)), axis=1)
    own_items = rng.integers(PADDING, items, (count, OWN_ITEMS))
    own_features = np.abs(rng.normal(size=(count, OWN_ITEMS, len(OWN_FEATURES))))
    codes = np.stack([rng.integers(0, size, count) for size in code_sizes], axis=1).astype(np.int32)
    return {
        "long_interest": rng.normal(size=(count, dim)).astype(np.float32),
        "long_mask": rng.integers(0, 2, (count, 1)).astype(np.float32),
        "long_age": (10 ** rng.uniform(0, 7, (count, 1))).astype(np.float32),
        "recent_items": np.where(present, recent, PADDING).astype(np.int32),
        "recent_types": np.where(present, rng.integers(1, 6, recent.shape), 0).astype(np.int32),
        "recent_ages": np.where(present, ages, 0).astype(np.float32),
        "recent_content": np.where(unknown, content, 0).astype(np.int32),
        "own_items": own_items.astype(np.int32),
        "own_features": np.where(own_items[..., None] >= 0, own_features, 0).astype(np.float32),
        "shopper": codes[:, :3],
        "context": codes[:, 3:],
        "allowed": rng.integers(0, 256, (count, (items + 7) // 8 + 1)).astype(np.uint8),
        "candidates": rng.integers(PADDING, items, (count, 16)).astype(np.int32),
    }
