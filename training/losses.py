"""Softmax cross-entropy over the catalogue with several right answers at a moment (full softmax, arXiv 2309.07602).

The logits of a batch are never held at once: a few rows at a time, values and gradients in one pass through the cache
("Cut your losses", arXiv 2411.09009, is the idea). In a large catalogue a sample of the items stands for all, each
weighted by the inverse of its chance to be in it (logQ correction, Yi et al., RecSys 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SAMPLED_ITEMS = 8192
CHUNK_LOGITS = {"cpu": 1 << 20, "cuda": 1 << 27}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the model says of B moments, short of the logits.

    interest: (B, D). vectors: (N, D). bias: (N,). extra_items: int64 (B, X), -1 for none; extra_values: (B, X), added
    to those items' logits. own_columns: so many of the X, the first ones, hold the shopper's own items, which belong in
    any sample. long_weight: (B, 1). signals: (B, S), of the gate.
    """

    interest: Tensor
    vectors: Tensor
    bias: Tensor
    extra_items: Tensor
    extra_values: Tensor
    own_columns: int
    long_weight: Tensor
    signals: Tensor

    def logits(self) -> Tensor:
        """(B, N), before anything is mixed in."""
        values = torch.addmm(self.bias, self.interest, self.vectors.T)
        return values.scatter_add_(1, self.extra_items.clamp(min=0), self.extra_values * (self.extra_items >= 0))


def softmax_loss(reading: Reading, target_row: Tensor, target_item: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over moments of the mean over their targets of -log softmax.

    Args:
        target_row, target_item: (P,) int64, row of the moment (ascending) and index of the item.
        weight: (B,).
    """
    counts = torch.bincount(target_row, minlength=len(weight))
    share = (weight / weight.sum())[target_row] / counts[target_row]
    loss: Tensor = _SoftmaxLoss.apply(  # type: ignore[no-untyped-call]
        reading.interest,
        reading.vectors,
        reading.bias,
        reading.extra_values * (reading.extra_items >= 0),
        reading.extra_items.clamp(min=0),
        target_row,
        target_item,
        share,
    )
    return loss


def own_items_loss(reading: Reading, target_row: Tensor, target_item: Tensor, weight: Tensor) -> Tensor:
    """`softmax_loss` among each shopper's own items alone: which of them comes again, whatever all others score.

    The repeat mode of RepeatNet (arXiv 1812.02646), as a second task of what is added to scores alone: interest and
    vectors learn nothing from it, they have all items to tell apart. Targets that are no own item, and moments without
    one that is, do not count. 0 where no moment counts. Arguments as of `softmax_loss`.
    """
    items, order = reading.extra_items.sort(dim=1)  # what is named twice stands together
    values = (reading.extra_values * (reading.extra_items >= 0)).float().gather(1, order)
    new = torch.ones_like(items, dtype=torch.bool)
    new[:, 1:] = items[:, 1:] != items[:, :-1]
    place = new.cumsum(dim=1) - 1
    added = torch.zeros_like(values).scatter_add_(1, place, values)
    named = torch.full_like(items, -1).scatter_(1, place, items)
    own = torch.zeros_like(place).scatter_add_(1, place, (order < reading.own_columns).long())
    among = (named >= 0) & (own > 0)
    known = named.clamp(min=0)
    with torch.no_grad():
        plain = torch.bmm(reading.vectors[known].float(), reading.interest.float().unsqueeze(2)).squeeze(2)
        plain += reading.bias[known]
    logits = (plain + added).masked_fill(~among, -torch.inf)
    hits = (named[target_row] == target_item.unsqueeze(1)) & among[target_row]  # (P, X)
    at, column = hits.nonzero(as_tuple=True)
    if not len(at):
        return logits.new_zeros(())
    row = target_row[at]
    counts = torch.bincount(row, minlength=len(weight))
    counted = weight * (counts > 0)
    share = (counted / counted.sum())[row] / counts[row]
    total = torch.logsumexp(logits[row], dim=1)
    return (share * (total - logits[row, column])).sum()


def sampled_loss(
    reading: Reading,
    target_row: Tensor,
    target_item: Tensor,
    weight: Tensor,
    chances: Tensor,
    draws: int = SAMPLED_ITEMS,
) -> Tensor:
    """`softmax_loss` over a sample: items drawn by `chances` (N,), which sum to 1, and all that the batch itself names.

    What a batch names, targets and own items, is about as likely as what is drawn, so an item stands for as many as its
    chance of being among all of them says; to a moment that named it, it stands for itself.
    """
    row = torch.arange(len(weight), device=target_row.device)
    own = reading.extra_items[:, : reading.own_columns]
    named_row = torch.cat([target_row, row.unsqueeze(1).expand_as(own)[own >= 0]])
    named = torch.cat([target_item, own[own >= 0]])
    named_row, named = torch.unique(torch.stack([named_row, named]), dim=1)
    drawn = torch.multinomial(chances, draws, replacement=True)
    kept = torch.unique(torch.cat([drawn, named]))
    place = torch.full((len(chances),), -1, dtype=torch.int64, device=kept.device)
    place[kept] = torch.arange(len(kept), device=kept.device)
    correction = torch.log(-torch.expm1(-chances[kept] * (draws + len(named))))
    counts = torch.bincount(named_row, minlength=len(weight))
    itself = torch.full((len(weight), int(counts.max())), -1, dtype=torch.int64, device=kept.device)
    column = torch.arange(len(named), device=kept.device) - (counts.cumsum(0) - counts)[named_row]
    itself[named_row, column] = place[named]
    extra = torch.where(reading.extra_items >= 0, place[reading.extra_items.clamp(min=0)], reading.extra_items)
    sampled = Reading(
        interest=reading.interest,
        vectors=reading.vectors[kept],
        bias=reading.bias[kept] - correction,
        extra_items=torch.cat([extra, itself], dim=1),
        extra_values=torch.cat([reading.extra_values, correction[itself.clamp(min=0)]], dim=1),
        own_columns=reading.own_columns,
        long_weight=reading.long_weight,
        signals=reading.signals,
    )
    return softmax_loss(sampled, target_row, place[target_item], weight)


class _SoftmaxLoss(torch.autograd.Function):
    """Value and gradients in one pass over chunks of rows; backward only scales."""

    @staticmethod
    def forward(
        ctx: Any,
        interest: Tensor,
        vectors: Tensor,
        bias: Tensor,
        extra_values: Tensor,
        extra_items: Tensor,
        target_row: Tensor,
        target_item: Tensor,
        share: Tensor,
    ) -> Tensor:
        interest, vectors, bias, extra_values = (part.float() for part in (interest, vectors, bias, extra_values))
        rows, items = len(interest), len(vectors)
        size = max(CHUNK_LOGITS[interest.device.type] // items, 16)
        row_share = torch.zeros(rows, device=interest.device).index_add_(0, target_row, share)
        of_interest, of_vectors, of_bias = torch.empty_like(interest), torch.zeros_like(vectors), torch.zeros_like(bias)
        of_extra = torch.empty_like(extra_values)
        turned = vectors.T.contiguous()
        buffer = torch.empty(size, items, device=interest.device)
        bounds = torch.searchsorted(target_row, torch.arange(0, rows + size, size, device=interest.device)).tolist()
        loss = torch.zeros((), device=interest.device)
        for part, at in enumerate(range(0, rows, size)):
            chunk = slice(at, min(at + size, rows))
            logits = torch.mm(interest[chunk], turned, out=buffer[: chunk.stop - at])
            logits += bias
            logits.scatter_add_(1, extra_items[chunk], extra_values[chunk])
            asked = slice(bounds[part], bounds[part + 1])
            row, item, of_target = target_row[asked] - at, target_item[asked], share[asked]
            logits -= logits.amax(dim=1, keepdim=True)
            loss -= (of_target * logits[row, item]).sum()
            total = logits.exp_().sum(dim=1)
            loss += (row_share[chunk] * total.log()).sum()
            logits *= (row_share[chunk] / total).unsqueeze(1)  # from here on the gradient
            logits.index_put_((row, item), -of_target, accumulate=True)
            torch.mm(logits, vectors, out=of_interest[chunk])
            of_vectors.addmm_(logits.T, interest[chunk])
            of_bias += logits.sum(dim=0)
            of_extra[chunk] = logits.gather(1, extra_items[chunk])
        ctx.save_for_backward(of_interest, of_vectors, of_bias, of_extra)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*(part * grads[0] for part in ctx.saved_tensors), None, None, None, None)
