"""The peer gets exactly what a stage lets learn and asks, its answers come back, and what stops it is one clear error.

A stand-in answers for RecTools here; `benchmarks.quality.peer.run` says how the real one is run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.peer_environment import PeerError
from benchmarks.quality.peer.run import PeerSettings, choose_epochs, run_peer, write_exchange
from features.schema import EventType
from tests.training.shops import START_MS, catalogue, write_shop
from training import evaluate
from training.dataset import read_log
from training.evaluate import Stage
from training.moments import Moments

HISTORIES = {"u:a": ["i000", "i001", "i002", "i003"], "u:b": ["i001", "gone", "i000", "i002"], "u:c": ["i003"]}
"""Three shoppers; the catalogue has i000 to i003. The last event of each is asked for, the first two are learned."""

ANSWER = """\
import json, sys
from pathlib import Path
folder = Path(sys.argv[3])
assert (folder / "train.parquet").exists() and not (folder / "ranked.npy").exists()
sys.stderr.write("epoch 1 of 2\\n")
import numpy as np
np.save(folder / "ranked.npy", np.array([[3, -1], [2, 1], [0, -1]], np.int32))
report = {"epochs": 2, "seconds_by_epoch": [1.5, 1.25], "cpu_seconds_by_epoch": [3.0, 2.5], "parameters": 640}
report |= {"peak_bytes": 1 << 20, "versions": {"rectools": "0.19.0"}}
(folder / "report.json").write_text(json.dumps(report))
"""


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """The shoppers' last events, asked of what came before."""
    rows = [
        (shopper, item, int(EventType.VIEW), START_MS + at * 1000, None, None)
        for shopper, items in HISTORIES.items()
        for at, item in enumerate(items)
    ]
    log, _ = read_log(write_shop(tmp_path / "shop", rows, catalogue(4)))
    moments = Moments(
        shoppers=np.array([0, 1, 2]),
        times_ms=START_MS + np.array([3000, 3000, 0]),
        targets=np.array([3, 2, 3], np.int32),
        offsets=np.array([0, 1, 2, 3]),
    )
    learn = np.array([True, True, False, False, True, True, False, False, False])
    test = evaluate.TestSet(
        moments=moments,
        allowed=np.array([True, False, True, True]),
        repeated=np.zeros(3, np.bool_),
        seen_masked=True,
    )
    return Stage(log=log, learn=learn, moments=moments.take(np.zeros(0, np.int64)), test=test)


def stand_in(folder: Path, script: str) -> Path:
    """An interpreter that runs `script` whatever it is given."""
    path = folder / "python"
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o755)
    return path


def test_only_learned_events_on_known_items_are_told_with_their_place_in_the_history(
    stage: Stage, tmp_path: Path
) -> None:
    write_exchange(stage, PeerSettings(), tmp_path)
    assert pl.read_parquet(tmp_path / "train.parquet").rows() == [(0, 0, 0), (0, 1, 1), (1, 1, 0)]


def test_a_moment_is_asked_with_everything_before_it_and_without_its_targets(stage: Stage, tmp_path: Path) -> None:
    write_exchange(stage, PeerSettings(), tmp_path)
    ask = pl.read_parquet(tmp_path / "ask.parquet")
    assert ask.schema == {"moment": pl.Int32, "items": pl.List(pl.Int32)}
    assert ask.rows() == [(0, [0, 1, 2]), (1, [1, 0]), (2, [])]
    assert np.load(tmp_path / "allowed.npy").tolist() == [True, False, True, True]
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert (settings["dim"], settings["max_length"], settings["seen_masked"]) == (64, 50, True)


def test_targets_are_told_only_where_the_number_of_epochs_is_chosen(stage: Stage, tmp_path: Path) -> None:
    python = stand_in(tmp_path, ANSWER)
    run_peer(stage, PeerSettings(), tmp_path / "final", python=python)
    choose_epochs(stage, PeerSettings(), tmp_path / "tuning", python=python)
    assert "targets" not in pl.read_parquet(tmp_path / "final" / "ask.parquet").columns
    assert pl.read_parquet(tmp_path / "tuning" / "ask.parquet")["targets"].to_list() == [[3], [2], [3]]


def test_answers_come_back_and_what_the_peer_says_is_passed_on(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_peer(stage, PeerSettings(), tmp_path / "exchange", python=stand_in(tmp_path, ANSWER))
    assert result.ranked.tolist() == [[3, -1], [2, 1], [0, -1]]
    assert (result.epochs, result.parameters, result.peak_bytes) == (2, 640, 1 << 20)
    assert (result.seconds_by_epoch, result.cpu_seconds_by_epoch) == ((1.5, 1.25), (3.0, 2.5))
    assert capsys.readouterr().err == "epoch 1 of 2\n"


def test_answers_of_an_earlier_run_are_gone_before_the_next(stage: Stage, tmp_path: Path) -> None:
    folder = tmp_path / "exchange"
    run_peer(stage, PeerSettings(), folder, python=stand_in(tmp_path, ANSWER))
    assert (folder / "ranked.npy").exists()
    with pytest.raises(PeerError):
        run_peer(stage, PeerSettings(), folder, python=stand_in(tmp_path, "raise SystemExit(3)"))
    assert not (folder / "ranked.npy").exists()


def test_failing_script_is_one_error_with_its_last_line(stage: Stage, tmp_path: Path) -> None:
    python = stand_in(tmp_path, "print('no matter')\nraise ValueError('12 heads do not divide 64')")
    with pytest.raises(PeerError, match=r"sasrec\.py .* ended with 1: ValueError: 12 heads do not divide 64\. "):
        run_peer(stage, PeerSettings(heads=12), tmp_path / "exchange", python=python)


def test_wrong_environment_is_named_with_its_remedy(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(PeerError, match=r"No module named '(pytorch_lightning|rectools)'.* remove \.venv-peer"):
        run_peer(stage, PeerSettings(), tmp_path / "exchange", python=Path(sys.executable))
