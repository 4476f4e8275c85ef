"""`python -m training release`: what a person is told of the release that is live now."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from features.database.engine import open_database
from features.log.event_log import EventLog
from features.online.materialize import materialize, missing_vectors
from features.settings import ROOT, Settings
from features.store import apply
from tests.processes import environment
from tests.training.shops import as_written, visits
from training.__main__ import app
from training.publish import publish
from training.trained import TrainedModel

SHOPPERS = 5


@pytest.fixture
def shop(settings: Settings, offline: Path, trained: TrainedModel, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A shop where release 2 is live, and 1 was before."""
    monkeypatch.setenv("BRAID_HOME", str(settings.home))
    monkeypatch.setenv("BRAID_MODEL_REPOSITORY", str(settings.model_repository))
    shutil.copytree(offline, settings.offline)
    engine = open_database(settings.log_url)
    events = as_written([row for row in visits() if int(row[0][2:]) < SHOPPERS])
    EventLog(engine).append(events, max(event.event_time_ms for event in events))
    engine.dispose()
    for number in (1, 2):
        assert publish(settings, trained, why="test", note=lambda _: None) == number
    return settings


def release(*arguments: str) -> str:
    """What `python -m training release …` says."""
    result = CliRunner().invoke(app, ["release", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def lose_the_online_store(shop: Settings) -> None:
    for file in shop.home.glob("online.db*"):
        file.unlink()


def test_nothing_is_said_of_vectors_that_are_there(shop: Settings) -> None:
    assert release("rollback") == "release 1 is live again, release 2 has failed\n"
    assert release("promote", "2") == "release 2 is live\n"


def test_a_rollback_to_vectors_that_the_online_store_has_lost_says_what_to_do(shop: Settings) -> None:
    lose_the_online_store(shop)
    apply(shop)
    live, told = release("rollback").splitlines()
    assert live == "release 1 is live again, release 2 has failed"
    assert told == "long-term vectors of release 1: not in the online store; run `python -m features materialize`"
    assert materialize(shop) == SHOPPERS
    assert release("promote", "1") == "release 1 is live\n"


def test_a_rollback_where_the_store_cannot_be_read_is_done_and_says_what_to_do(shop: Settings) -> None:
    lose_the_online_store(shop)
    remedy = "run `python -m features apply`, then `… materialize`"
    assert (
        f"long-term vectors of release 1: cannot be looked for (no such table: braid_user_interest_v1); {remedy}"
        in (release("rollback"))
    )
    apply(shop)
    (shop.home / "registry.db").unlink()
    assert remedy in release("promote", "2")


def test_a_shop_comes_back_from_its_database_and_its_models_alone(shop: Settings, tmp_path: Path) -> None:
    restored = shop.model_copy(update={"home": tmp_path / "restored"})
    restored.home.mkdir()
    with closing(sqlite3.connect(shop.home / "braid.db")) as source:
        source.execute("VACUUM INTO ?", [str(restored.home / "braid.db")])
    for line in ("apply", "build", "materialize"):
        done = subprocess.run(
            [sys.executable, "-m", "features", line],
            env=environment(restored),
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        if line == "apply":
            remedy = "is declared again; `python -m features materialize` makes its vectors"
            assert done.stdout.splitlines() == [f"release 1 {remedy}", f"release 2 {remedy}"]
    engine = open_database(restored.log_url)
    assert missing_vectors(restored, engine, 2) == ""
    engine.dispose()
