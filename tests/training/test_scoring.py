"""What the model says of a batch: with encoders in bfloat16, as on a GPU, and with ids left out, as while fitting."""

from dataclasses import replace
from pathlib import Path

import torch

from tests.training.conftest import SMALL
from training.batches import Batch, BatchMaker
from training.config import FitConfig
from training.dataset import read_log
from training.evaluate import Protocol, split_times
from training.fit import build_model
from training.fusion import FusionModel
from training.pipeline import Split, stages
from training.scoring import read_batch


def a_batch(offline: Path) -> tuple[FusionModel, Batch]:
    """All moments that a small model learns from, and that model, which drops nothing."""
    log, moments = read_log(offline)
    tuning, _ = stages(log, moments, Split(*split_times(moments, None)), Protocol())
    model, _ = build_model(tuning, replace(SMALL, model=replace(SMALL.model, transitions=True, dropout=0.0)))
    maker = BatchMaker.of(model.eval(), log)
    (batch,) = maker.batches(maker.ask(tuning.moments), batch_examples=1 << 20, learn=tuning.learn)
    return model, batch


def test_counts_and_terms_keep_their_precision_beside_encoders_in_bfloat16(offline: Path) -> None:
    model, batch = a_batch(offline)
    plain = read_batch(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        short = read_batch(model, batch)
    assert not torch.equal(plain.interest, short.interest)
    assert short.extra_values.dtype == torch.float32
    assert torch.equal(plain.extra_items, short.extra_items)  # a follower that own pairs alone made is none in both
    assert torch.allclose(plain.extra_values, short.extra_values, atol=0.05)


def test_items_whose_ids_are_left_out_follow_nothing_as_new_items_do(offline: Path) -> None:
    model, batch = a_batch(offline)
    nothing_else = FitConfig(drop_recent=0.0, drop_codes=0.0, drop_transitions=0.0, drop_ids=0.0)
    torch.manual_seed(0)
    plain = read_batch(model, batch, nothing_else)
    dropped = read_batch(model, batch, replace(nothing_else, drop_ids=0.999999))
    followers = slice(plain.own_columns, None)
    assert plain.extra_values[:, followers].count_nonzero() > 100
    assert not dropped.extra_values[:, followers].any()
    assert dropped.extra_values[:, : plain.own_columns].any()
