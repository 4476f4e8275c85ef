"""`python -m training release traffic`: what a person sees and is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from features.database.engine import open_database
from features.traffic.shadow_statistics import Disagreement, add_disagreements
from tests.features.test_releases import held_ready
from training.__main__ import app


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Release 1 is live, 2 and 3 are held ready, 4 is not."""
    monkeypatch.setenv("BRAID_HOME", str(tmp_path))
    engine = open_database(f"sqlite:///{tmp_path / 'braid.db'}")
    held_ready(engine)
    add_disagreements(engine, {("halves", 3, 1): Disagreement(compared=10, overlap=7.5, correlated=10, correlation=9)})
    engine.dispose()
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["release", "traffic", *arguments], env={"COLUMNS": "200"})


def test_a_split_is_set_shown_and_ended(shop: Path) -> None:
    assert "live release answers all" in call().output
    set_up = call("set", "halves", "--arm", "1=50", "--arm", "2=50", "--shadow", "3", "--why", "to see")
    assert set_up.exit_code == 0 and "release 1 50%, release 2 50%, shadow 3" in set_up.output
    shown = call().output
    assert "Experiment halves" in shown and "75.0%" in shown and "halves set by" in shown and "to see" in shown
    assert call("end").exit_code == 0 and "live release answers all" in call().output
    assert call("canary", "next", "3", "--steps", "5,50", "--placement", "home").exit_code == 0
    assert "canary next at home: release 1 95%, release 3 5%" in call().output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["set", "e", "--arm", "1=50", "--arm", "2=49"], "must sum to 100"),
        (["set", "e", "--arm", "1:50", "--arm", "2=50"], "RELEASE=PERCENT"),
        (["set", "e", "--arm", "1=50", "--arm", "2=abc"], "--arm '2=abc' is not RELEASE=PERCENT; example: --arm 7=90"),
        (["set", "e", "--arm", "1=50", "--arm", "4=50"], "release load 4"),
        (["canary", "e", "9"], "there is no release 9"),
        (["canary", "e", "2", "--steps", "5;50"], "--steps '5;50' are not percents with commas between; example:"),
        (["canary", "e", "2", "--steps", "5,1"], "must ascend"),
        (["shadow", "e", "4"], "not held ready"),
        (["end"], "has no split"),
    ],
)
def test_what_a_person_can_put_right_is_one_line(shop: Path, arguments: list[str], message: str) -> None:
    refused = call(*arguments)
    assert refused.exit_code == 2 and message in refused.output.replace("\n", " ")
