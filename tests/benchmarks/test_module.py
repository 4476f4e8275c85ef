"""The bench of the served module measures what Triton would load, at the size that was asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.module import SEED_ITEMS, blown_up, random_inputs
from features import schema
from features.settings import ROOT


def test_an_item_table_is_blown_up_and_every_item_can_win() -> None:
    serving = blown_up(3 * SEED_ITEMS)
    with torch.inference_mode():
        top_items, top_scores, *_ = serving(*random_inputs(serving.model, 3 * SEED_ITEMS, 4, torch.device("cpu")))
    assert top_items.shape == (4, schema.TOP_ITEMS)
    assert SEED_ITEMS < int(top_items.max()) < 3 * SEED_ITEMS
    assert bool((top_scores[:, :-1] >= top_scores[:, 1:]).all())


def test_it_prints_its_table_and_keeps_the_figures() -> None:
    command = [sys.executable, "-m", "benchmarks.module", "--items", str(SEED_ITEMS), "--batch", "1", "--batch", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr
    record = Path(done.stdout.split()[-1])
    figures = json.loads(record.read_text())
    record.unlink()
    assert [(it["what"], it["dtype"], it["batch"]) for it in figures["speeds"]] == [
        (what, dtype, batch)
        for batch in (1, 2)
        for what, dtype in (("module", "fp32"), ("with a mask", "fp32"), ("scoring", "fp32"), ("scoring", "bf16"))
    ]
    assert all(it["ms"] > 0 and it["share_of_bandwidth"] > 0 for it in figures["speeds"])


def test_a_gpu_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.module", "--device", "cuda"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, env={"CUDA_VISIBLE_DEVICES": "", "PATH": "/"}
    )
    assert done.returncode == 1 and done.stderr.startswith("--device cuda: ") and done.stderr.count("\n") == 1
