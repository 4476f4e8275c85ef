"""The command line: what a person sees."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from features.__main__ import app
from features.database.engine import open_database
from features.log.event_log import EventLog
from features.settings import ROOT, load_settings

EVENTS = "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n1,29,3.5,1112484676\n,29,3.5,1112484676\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BRAID_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_import_guesses_the_mapping_and_shows_what_it_did(home: Path, tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(EVENTS)
    result = CliRunner().invoke(app, ["import", str(tmp_path / "ratings.csv")])
    assert result.exit_code == 0, result.output
    assert "movielens" in result.output and "missing_user" in result.output and "events/s" in result.output
    (report,) = home.glob("imports/*/report.json")
    assert json.loads(report.read_text())["sections"][0]["new"] == 2
    assert (report.parent / "rejected.parquet").is_file()
    assert [path.name for path in report.parent.iterdir() if path.is_dir()] == []


def test_a_person_is_erased_from_the_command_line(home: Path, tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(EVENTS)
    for command in (["import", str(tmp_path / "ratings.csv")], ["delete-user", "1"], ["delete-user", "--session", "1"]):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
    assert "Erased." in result.output
    engine = open_database(load_settings().log_url)
    assert EventLog(engine).read_after(0, 10).filter(pl.col("shopper") == "u:1").is_empty()
    engine.dispose()


def test_names_and_paths_are_shown_as_they_are_whatever_brackets_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAID_HOME", str(tmp_path / "shop [a/b]"))
    (tmp_path / "ratings [old].csv").write_text(EVENTS)
    done = CliRunner().invoke(app, ["import", str(tmp_path / "ratings [old].csv")], env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    assert "read from ratings [old].csv" in done.output
    (rejected,) = tmp_path.glob("shop [[]a/b]/imports/*/rejected.parquet")
    assert f"with reasons: {rejected}\n" in done.output
    failed = CliRunner().invoke(app, ["import", str(tmp_path / "[/nowhere].csv")])
    assert failed.exit_code == 2 and f"{tmp_path}/[/nowhere].csv: no such file" in failed.output


def test_the_report_says_of_each_reason_what_it_means(home: Path, tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(EVENTS)
    names = [f"{id},Film,Drama" for id in ("", "2", "2", "9" * 129)]
    (tmp_path / "movies.csv").write_text("\n".join(["movieId,title,genres", *names]) + "\n")
    result = CliRunner().invoke(app, ["import", str(tmp_path / "ratings.csv")], env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    for name, meaning in (
        ("missing_user", "neither a user nor a session"),
        ("missing_id", "no id"),
        ("too_long", "an id over 128 characters"),
        ("overwritten", "another row with the same id comes later"),
    ):
        assert re.search(rf"{name} .*rejected: {meaning} +│", result.output), result.output


def test_status_of_a_fresh_and_of_a_filled_shop(home: Path, tmp_path: Path) -> None:
    fresh = CliRunner().invoke(app, ["status"])
    assert fresh.exit_code == 0, fresh.output
    assert "none; train and publish one" in fresh.output
    (tmp_path / "ratings.csv").write_text(EVENTS)
    CliRunner().invoke(app, ["import", str(tmp_path / "ratings.csv")])
    filled = CliRunner().invoke(app, ["status"])
    assert "2, the last of 2005-04-02 23:53:47 UTC" in filled.output
    assert "2 positions behind the log" in filled.output


def test_the_module_runs_as_a_program(home: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "features", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    for command in ("import", "build", "apply", "stream", "materialize", "status"):
        assert command in done.stdout


def test_a_wrong_setting_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAID_ONLINE_STORE", "oracle")
    result = CliRunner().invoke(app, ["status"])
    assert result.exit_code != 0
    assert "BRAID_ONLINE_STORE" in str(result.exception) and "Traceback" not in result.output


def test_a_full_disk_is_one_line_with_what_to_do(home: Path) -> None:
    home.mkdir()
    (home / f"feature_store.yaml.{os.getpid()}").symlink_to("/dev/full")
    result = CliRunner().invoke(app, ["apply"])
    assert result.exit_code == 2
    assert re.fullmatch(r"error: The disk is full: .*No space left on device.*; free some .*\n", result.output)


def test_a_redis_url_of_another_form_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAID_REDIS_URL", "junk")
    with pytest.raises(SystemExit, match=r"^BRAID_REDIS_URL: .*is not host:port"):
        load_settings()
    monkeypatch.setenv("BRAID_REDIS_URL", "one:6379,two:6380,ssl=true")
    assert load_settings().redis_url == "one:6379,two:6380,ssl=true"


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAID_HOME", "")
    assert load_settings().home == ROOT / "var"
