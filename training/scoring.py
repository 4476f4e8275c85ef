"""The fusion model applied to a batch of moments, for fitting and for evaluation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.batches import Batch, BatchMaker
from training.config import FitConfig
from training.covisitation import mixed
from training.dataset import Log
from training.encoders import Encoder
from training.fusion import FusionModel, gate_signals
from training.losses import Reading
from training.moments import Moments
from training.stretches import Stretches

SHARED_BY = 4
"""From so many moments to a stretch on, all its states are computed at once."""


def read_batch(
    model: FusionModel,
    batch: Batch,
    drops: FitConfig | None = None,
    *,
    use_long: bool = True,
    use_recent: bool = True,
    long_weight: float | None = None,
) -> Reading:
    """What the model says of every moment of a batch.

    Args:
        drops: shares of inputs to leave out at random, while fitting.
        use_long, use_recent: False leaves a strand out everywhere, to measure what it is worth.
        long_weight: a share of the long strand to take instead of the model's own, where both strands are there.
    """
    device = batch.long_mask.device
    count = batch.long_mask.shape[0]
    items = model.tower.ids.num_embeddings
    keep_ids = _kept(items, drops.drop_ids, device) if drops and drops.drop_ids and model.tower.use_content else None
    vectors, bias = model.tower(keep_ids)
    table = torch.cat([vectors, vectors.new_zeros(1, vectors.shape[1])])  # (N + 1, D)
    long_mask = batch.long_mask * float(use_long and model.use_long)
    short_mask = batch.short_mask * float(use_recent and model.use_short)
    seen_types, codes = batch.seen_types, batch.codes
    own_mask = voter_mask = torch.ones_like(long_mask)
    forced = None if long_weight is None else torch.full_like(long_mask, long_weight)
    if drops:
        own_mask = torch.maximum(batch.long_mask, _kept(count, 0.5, device))  # purchases come from a job as well
        kept = _kept(count, drops.drop_recent, device)
        short_mask = short_mask * kept
        seen_types = seen_types * kept.long()
        if model.use_transitions and drops.drop_transitions:
            voter_mask = _kept(count, drops.drop_transitions, device)
        if drops.drop_gate:
            forced = torch.full_like(long_mask, 0.5).where(_kept(count, drops.drop_gate, device) == 0, torch.nan)
        codes = codes * (torch.rand(codes.shape, device=device) >= drops.drop_codes).long()
    elif not (use_recent and model.use_short):
        seen_types = torch.zeros_like(seen_types)
    long = _strand(model.long, table, batch.history, long_mask)
    short = _strand(model.short, table, batch.recent, short_mask)
    signals = gate_signals(
        long,
        short,
        long_mask,
        batch.long_age,
        short_mask,
        batch.recent_age,
        batch.session_events * short_mask,
        batch.unseen_events * short_mask,
    )
    interest, share = model.interest(long, long_mask, short, signals, batch.recent_age, codes, forced)
    with torch.autocast(device.type, enabled=False):  # counts differ by less than bfloat16 can tell
        parts = (
            table.float(),
            bias.float(),
            batch,
            seen_types,
            own_mask,
            voter_mask,
            signals.float(),
            interest.float(),
        )
        own, followers = _extras(model, *parts)
    return Reading(
        interest=interest,
        vectors=vectors,
        bias=bias,
        extra_items=torch.cat([own[0], followers[0]], dim=1),
        extra_values=torch.cat([own[1], followers[1]], dim=1),
        own_columns=own[0].shape[1],
        long_weight=share,
        signals=signals.float(),
    )


def scores_of(model: FusionModel, batch: Batch, reading: Reading, *, use_recent: bool = True) -> Tensor:
    """Scores (B, N) of all items as they are served: what the batch reads as, mixed with what is looked at together."""
    logits = reading.logits().float()
    if not (model.use_covisitation and model.use_short and use_recent):
        return logits
    return mixed(logits, *model.covisitation(batch.seen_items, batch.seen_types, batch.seen_ages, reading.signals))


class ModelScorer:
    """A fitted model as a `training.evaluate.Scorer`."""

    def __init__(
        self,
        model: FusionModel,
        log: Log,
        *,
        device: str = "cpu",
        maker: BatchMaker | None = None,
        use_long: bool = True,
        use_recent: bool = True,
        long_weight: float | None = None,
    ) -> None:
        """`maker` is the log's, where one is at hand; the rest as in `read_batch`."""
        self.model, self.device = model.to(device).eval(), device
        self.maker = maker or BatchMaker.of(model, log, use_long=use_long)
        self.use_long, self.use_recent, self.long_weight = use_long, use_recent, long_weight

    def __call__(self, moments: Moments) -> npt.NDArray[np.float32]:
        """Logits, float32 (E, N)."""
        return self.read(moments)[0]

    def read(self, moments: Moments) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Logits (E, N) and weights of the long strand (E,)."""
        logits = np.zeros((len(moments), self.model.tower.ids.num_embeddings), np.float32)
        weights = np.zeros(len(moments), np.float32)
        with torch.inference_mode():
            for batch in self.maker.batches(self.maker.ask(moments), batch_examples=256):
                there = batch.to(self.device)
                reading = read_batch(
                    self.model,
                    there,
                    use_long=self.use_long,
                    use_recent=self.use_recent,
                    long_weight=self.long_weight,
                )
                scores = scores_of(self.model, there, reading, use_recent=self.use_recent)
                logits[batch.rows] = scores.cpu().numpy()
                weights[batch.rows] = reading.long_weight.float().cpu().numpy()[:, 0]
        return logits, weights


def _strand(encoder: Encoder, table: Tensor, stretches: Stretches, mask: Tensor) -> Tensor:
    """The state of a strand at each moment, (B, D), zero where it is masked; not computed where nobody has it.

    Where few moments share a stretch, it costs less to read it once for each and to compute the top layer for the
    moment's own event alone.
    """
    if not bool((mask > 0).any()):
        return table.new_zeros(mask.shape[0], table.shape[1])
    if len(stretches.row) < SHARED_BY * len(stretches.items):
        row = stretches.row
        vectors = _rows(table, stretches.items[row])
        newest, _ = encoder.newest(vectors, stretches.types[row], stretches.gaps[row], stretches.last)
    else:
        states = encoder(_rows(table, stretches.items), stretches.types, stretches.gaps)
        newest = states[stretches.row, stretches.last]
    return newest * mask


def _extras(
    model: FusionModel,
    table: Tensor,
    bias: Tensor,
    batch: Batch,
    seen_types: Tensor,
    own_mask: Tensor,
    voter_mask: Tensor,
    signals: Tensor,
    interest: Tensor,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Own items (B, X), -1 for none, and what is added to their scores (B, X); the same of followers."""
    own = followers = (batch.seen_items[:, :0], table.new_zeros(len(batch.rows), 0))
    if model.use_repeat:
        features = model.repeat.item(table)  # (N + 1, REPEAT_DIM)
        bought = torch.where(own_mask > 0, batch.own_items, torch.full_like(batch.own_items, -1))
        trends = batch.own_trends if batch.own_trends is not None else model.repeat.trends[bought.clamp(min=0)]
        plain = _scores(table, bias, interest, bought)
        of_bought = model.repeat.of_own(_rows(features, bought), plain, batch.own_features, trends, signals)
        seen = torch.where(seen_types > 0, batch.seen_items, torch.full_like(batch.seen_items, -1))
        vectors, plain = _rows(features, batch.seen_items), _scores(table, bias, interest, batch.seen_items)
        of_seen = model.repeat.of_recent(vectors, plain, seen_types, batch.seen_ages, signals)
        own = torch.cat([bought, seen], dim=1), torch.cat([of_bought, of_seen], dim=1)
    if model.use_transitions:
        voters = seen_types * voter_mask.long()
        followers = model.transitions(batch.seen_items, voters, batch.seen_ages, signals, batch.coming_items)
    return own, followers


@torch.no_grad()
def _scores(table: Tensor, bias: Tensor, interest: Tensor, items: Tensor) -> Tensor:
    """Scores (B, X) of items (B, X) without repeat and transition term."""
    dots = torch.bmm(_rows(table, items), interest.unsqueeze(2)).squeeze(2)
    return dots + bias[items.clamp(min=0)]


def _rows(table: Tensor, items: Tensor) -> Tensor:
    """Rows of item indices; the last one for padding and unknown items."""
    found: Tensor = torch.nn.functional.embedding(torch.where(items < 0, table.shape[0] - 1, items), table)
    return found


def _kept(count: int, drop: float, device: torch.device) -> Tensor:
    """float32 (count, 1): 0 with probability `drop`, else 1."""
    return (torch.rand(count, 1, device=device) >= drop).float()
