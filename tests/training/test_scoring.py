"""What the model says of a batch where its encoders run in bfloat16, as they do on a GPU."""

from dataclasses import replace
from pathlib import Path

import torch

from tests.training.conftest import SMALL
from training.batches import BatchMaker
from training.dataset import read_log
from training.evaluate import Protocol, split_times
from training.fit import build_model
from training.pipeline import Split, stages
from training.scoring import read_batch


def test_counts_and_terms_keep_their_precision_beside_encoders_in_bfloat16(offline: Path) -> None:
    log, moments = read_log(offline)
    tuning, _ = stages(log, moments, Split(*split_times(moments, None)), Protocol())
    model, _ = build_model(tuning, replace(SMALL, model=replace(SMALL.model, transitions=True, dropout=0.0)))
    maker = BatchMaker.of(model.eval(), log)
    (batch,) = maker.batches(maker.ask(tuning.moments), batch_examples=1 << 20, learn=tuning.learn)
    plain = read_batch(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        short = read_batch(model, batch)
    assert not torch.equal(plain.interest, short.interest)
    assert short.extra_values.dtype == torch.float32
    assert torch.equal(plain.extra_items, short.extra_items)  # a follower that own pairs alone made is none in both
    assert torch.allclose(plain.extra_values, short.extra_values, atol=0.05)
