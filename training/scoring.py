"""The fusion model applied to a batch of moments, for fitting and for evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.batches import Batch
from training.config import FitConfig
from training.fusion import FusionModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """logits: (B, N). long_weight: (B, 1). interest: (B, D)."""

    logits: Tensor
    long_weight: Tensor
    interest: Tensor


def score_batch(
    model: FusionModel, batch: Batch, drops: FitConfig | None = None, *, use_long: bool = True, use_recent: bool = True
) -> Scores:
    """Scores every item at every moment of a batch.

    Args:
        drops: shares of inputs to leave out at random, while fitting.
        use_long, use_recent: False leaves a strand out everywhere, to measure what it is worth.
    """
    count = batch.long_mask.shape[0]
    items = model.tower.ids.num_embeddings
    keep_ids = _kept(items, drops.drop_ids) if drops else None
    vectors, bias = model.tower(keep_ids)
    table = torch.cat([vectors, torch.zeros(1, vectors.shape[1])])  # (N + 1, D)

    long_mask, own_mask, codes = batch.long_mask, torch.ones(count, 1), batch.codes
    recent_types = batch.recent_types
    if drops:
        kept = _kept(count, drops.drop_long)
        own_mask = torch.maximum(kept, _kept(count, 0.5))
        long_mask = long_mask * kept
        recent_types = recent_types * _kept(count, drops.drop_recent).long()
        codes = codes * (torch.rand(codes.shape) >= drops.drop_codes).long()
    if not use_long:
        long_mask = torch.zeros_like(long_mask)
    if not use_recent:
        recent_types = torch.zeros_like(recent_types)

    states = model.long(_rows(table, batch.history_items), batch.history_types, batch.history_gaps)
    recent_vectors = _rows(table, batch.recent_items)
    interest, share, _, signals = model.interest(
        states[batch.segment, batch.last],
        long_mask,
        batch.long_age,
        recent_vectors,
        recent_types,
        batch.recent_ages,
        codes,
    )
    own_items = torch.where(own_mask > 0, batch.own_items, torch.full_like(batch.own_items, -1))
    own = model.repeat.of_own(_rows(table, own_items), batch.own_features, signals)
    recent = model.repeat.of_recent(recent_vectors, recent_types, batch.recent_ages, signals)
    logits = torch.cat([interest @ vectors.T + bias, torch.zeros(count, 1)], dim=1)
    logits = logits.scatter_add(1, _known(own_items, items), own)
    recent_items = torch.where(recent_types > 0, batch.recent_items, torch.full_like(batch.recent_items, -1))
    logits = logits.scatter_add(1, _known(recent_items, items), recent)
    return Scores(logits=logits[:, :items], long_weight=share, interest=interest)


def _known(items: Tensor, count: int) -> Tensor:
    """Item indices, one past the last item for padding and unknown items."""
    return torch.where(items < 0, torch.full_like(items, count), items)


def _rows(table: Tensor, items: Tensor) -> Tensor:
    return torch.nn.functional.embedding(_known(items, table.shape[0] - 1), table)


def _kept(count: int, drop: float) -> Tensor:
    """float32 (count, 1): 0 with probability `drop`, else 1."""
    return (torch.rand(count, 1) >= drop).float()
