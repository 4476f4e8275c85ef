"""How far a fitted model lets co-visitation speak, learned last, with everything else as it is."""

from __future__ import annotations

import numpy as np
import torch
from tqdm import tqdm

from training.batches import Batch, BatchMaker
from training.covisitation import with_share
from training.fusion import FusionModel
from training.moments import Moments
from training.scoring import read_batch

TRUST_EXAMPLES = 512
TRUST_STEPS = 240
TRUST_EPOCHS = 60
"""At most, where few moments make few steps."""
TRUST_RATE = 0.02


def learn_trust(model: FusionModel, maker: BatchMaker, moments: Moments, device: str) -> None:
    """How the companions' votes are read and how far they are trusted, from moments that the model has not learned.

    The model itself stays as it is: its probability of each target is asked once.
    """
    model.eval()
    read: list[tuple[Batch, torch.Tensor, torch.Tensor]] = []
    with torch.no_grad():
        for batch in maker.batches(maker.ask(moments), batch_examples=TRUST_EXAMPLES):
            there = batch.to(device)
            reading = read_batch(model, there)
            logits = reading.logits().float()
            known = logits[there.target_row, there.target_item] - logits.logsumexp(dim=1)[there.target_row]
            read.append((there, reading.signals, known))
    epochs = min(-(-TRUST_STEPS // len(read)), TRUST_EPOCHS)
    optimizer = torch.optim.Adam(model.covisitation.parameters(), lr=TRUST_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(read))
    rng = np.random.default_rng(0)
    for _ in tqdm(range(epochs), desc="trust in companions", unit="epoch", leave=False, mininterval=0.5):
        for at in rng.permutation(len(read)):
            batch, signals, known = read[at]
            items, shares, trust = model.covisitation(batch.seen_items, batch.seen_types, batch.seen_ages, signals)
            row = batch.target_row
            share = (shares[row] * (items[row] == batch.target_item.unsqueeze(1))).sum(dim=1)
            found = with_share(known, share, trust[row, 0]) + torch.nn.functional.logsigmoid(-trust[row, 0])
            silent = (items[row] < 0).all(dim=1)  # without companions, nothing is mixed
            counts = torch.bincount(row, minlength=len(batch.rows))
            loss = -(torch.where(silent, known, found) / counts[row]).sum() / len(batch.rows)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
