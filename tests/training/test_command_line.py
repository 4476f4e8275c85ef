"""The command line: a whole run on small files, and errors as one line that says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from features.database.engine import open_database
from features.releases.release_table import ReleaseTable
from features.schema import EventType
from features.settings import load_settings
from training.__main__ import app
from training.evaluate import RANKED
from training.fit import _Run
from training.publish import write_candidate
from training.trained import TrainedModel


@pytest.fixture
def home(offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shop's home with offline files."""
    shutil.copytree(offline, tmp_path / "offline")
    monkeypatch.setenv("BRAID_HOME", str(tmp_path))
    monkeypatch.setenv("BRAID_MODEL_REPOSITORY", str(tmp_path / "models"))
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_training_writes_figures_and_predictions_that_evaluating_finds_again(home: Path) -> None:
    trained = call("train", "--epochs", "1", "--threads", "1")
    assert trained.exit_code == 0, trained.output
    assert "personal frequency" in trained.output
    folder = home / "training"
    figures = json.loads((folder / "evaluation.json").read_text())
    assert {"fusion", "long-term only", "recent only", "EASE"} <= set(figures)
    assert (folder / "evaluation.md").read_text().startswith("| model |")
    predictions = pl.read_parquet(folder / "predictions.parquet")
    assert predictions.columns == ["shopper", "time_ms", "bought", "recommended"]
    assert set(predictions["recommended"].list.len()) == {RANKED}
    evaluated = call("evaluate", "--threads", "1")
    assert evaluated.exit_code == 0, evaluated.output
    again = json.loads((folder / "evaluation.json").read_text())
    assert again["fusion"] == pytest.approx(figures["fusion"], abs=1e-6)

    begin = json.loads((folder / "report.json").read_text())["data_window"]["test_from"][:10]
    before = call("evaluate", "--test-from", f"{begin}T08:59+09:00")
    assert before.exit_code == 2
    assert f"the model has learned what was before {begin}T00:00:00+00:00; give that" in before.output
    assert call("evaluate", "--threads", "1", "--test-from", f"{begin}T09:00+09:00").exit_code == 0
    assert json.loads((folder / "evaluation.json").read_text()) == again


def test_figures_of_a_shop_without_purchases_are_said_to_be_of_events(home: Path) -> None:
    assert "too few purchases" not in call("train", "--epochs", "1", "--threads", "1").output
    file = home / "offline" / "events.parquet"
    pl.read_parquet(file).filter(pl.col("event_type") != int(EventType.PURCHASE)).write_parquet(file)
    for command in (["train", "--epochs", "1"], ["evaluate"]):
        told = call(*command, "--threads", "1")
        assert told.exit_code == 0, told.output
        assert "next events, ranked over all items" in told.output
        assert "There are too few purchases to learn from and to measure on" in told.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--test-from", "soon"], "--test-from 'soon' is no date"),
        (["train", "--test-from", "1999-01-01"], "--test-from 1999-01-01T00:00:00+00:00: there is nothing before it"),
        (["train", "--epochs", "0"], "epochs=0"),
        (["publish"], "run `python -m training train` first"),
        (["evaluate"], "run `python -m training train` first"),
        (["update"], "no release is live"),
        (["release", "show", "9"], "there is no release 9"),
        (["release", "load", "9"], "there is no release 9"),
        (["release", "promote", "9"], "there is no release 9"),
        (["release", "retire", "9"], "there is no release 9"),
        (["release", "rollback"], "no release is live"),
        (["train", "--test-from", "[/soon]"], "--test-from '[/soon]' is no date"),
    ],
)
def test_what_a_person_can_put_right_is_one_line(home: Path, arguments: list[str], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_a_run_that_is_stopped_says_how_to_go_on_and_publishing_that_it_was_not_finished(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ("train", "--epochs", "2", "--threads", "1")
    assert "checkpoint.pt is missing" in call(*train, "--resume").output.replace("\n", "")
    assert call(*train).exit_code == 0

    def stop_after(epochs: int) -> None:
        whole = _Run.train_epoch

        def cut(run: _Run, *arguments: Any) -> float:
            if run.epoch == epochs:
                raise KeyboardInterrupt
            return whole(run, *arguments)

        with monkeypatch.context() as patched:
            patched.setattr(_Run, "train_epoch", cut)
            stopped = call(*train)
        assert stopped.exit_code == 130
        assert ("--resume goes on after the epoch that ended at" in stopped.output) == (epochs > 0)
        assert ("nothing of this run is kept" in stopped.output) == (epochs == 0)

    stop_after(0)
    published = call("publish", "--although-worse", "a test").output
    assert "publishing the run that ended at 2" in published and "not finished" not in published
    stop_after(1)
    assert "a later run was not finished" in call("publish", "--although-worse", "a test").output
    assert call(*train, "--resume").exit_code == 0
    assert "not finished" not in call("publish", "--although-worse", "a test").output


def test_training_before_building_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAID_HOME", str(tmp_path))
    result = call("train")
    assert result.exit_code == 2
    assert "run `python -m features build` first" in result.output


def test_an_empty_release_table_is_listed(home: Path) -> None:
    assert call("release", "list").exit_code == 0


def test_a_database_that_does_not_answer_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAID_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    for arguments in (["release", "list"], ["release", "rollback"], ["release", "traffic"], ["update"]):
        result = call(*arguments)
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1
        assert "error: BRAID_DATABASE_URL: " in result.stderr and "Connection refused" in result.stderr


@pytest.mark.parametrize("repository", ["/proc/no/repository", "/proc/no"])
def test_a_model_repository_that_cannot_be_written_is_said_before_anything_is_made(
    home: Path, monkeypatch: pytest.MonkeyPatch, repository: str
) -> None:
    monkeypatch.setenv("BRAID_MODEL_REPOSITORY", repository)
    result = call("update")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: BRAID_MODEL_REPOSITORY={repository} cannot be written")
    assert len(result.stderr.splitlines()) == 1
    assert not (home / "braid.db").exists()


@pytest.mark.parametrize("command", ["load", "promote"])
def test_a_release_whose_item_tower_is_not_whole_is_neither_loaded_nor_promoted(
    home: Path, trained: TrainedModel, command: str
) -> None:
    table = ReleaseTable(open_database(load_settings().log_url))
    table.record(1, write_candidate(trained, 1, home / "candidate"), "test", "a copy")
    for model in ("fusion", "item_tower"):
        (home / "models" / model).mkdir(parents=True)
        (home / "candidate" / model).rename(home / "models" / model / "1")
    tower = home / "models" / "item_tower" / "1"

    def refused() -> str:
        result = call("release", command, "1")
        assert (result.exit_code, table.of(1).state) == (2, "candidate")
        return result.output.replace("\n", "")

    whole = (tower / "model.pt").read_bytes()
    (tower / "model.pt").write_bytes(whole[:-1])
    assert "item_tower/1/model.pt is not the file that was published" in refused()
    (tower / "model.pt").unlink()
    assert "item_tower/1/model.pt is missing" in refused()
    (tower / "model.pt").write_bytes(whole)
    manifest = (tower / "release.json").read_text()
    (tower / "release.json").write_text(manifest.replace('"release": 1', '"release": 2'))
    assert "item_tower/1/release.json is of release 2, not 1" in refused()
    (tower / "release.json").unlink()
    assert "item_tower/1/release.json is missing" in refused()
    (tower / "release.json").write_text(manifest)
    assert call("release", command, "1").exit_code == 0
