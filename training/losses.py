"""Full softmax cross-entropy (arXiv 2309.07602) with several right answers at a moment."""

from __future__ import annotations

import torch
from torch import Tensor


def softmax_loss(logits: Tensor, target_row: Tensor, target_item: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over moments of the mean over their targets of -log softmax.

    Args:
        logits: (B, N). target_row, target_item: (P,) int64, row of the moment and index of the item.
        weight: (B,).
    """
    log_likelihood = logits[target_row, target_item] - torch.logsumexp(logits, dim=1)[target_row]
    counts = torch.bincount(target_row, minlength=len(logits)).clamp(min=1)
    share = (weight / counts)[target_row]
    return -(share * log_likelihood).sum() / weight.sum()
