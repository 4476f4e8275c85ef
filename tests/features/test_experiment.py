"""What recorded answers say of the arms of an experiment, against figures worked out by hand; and the report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from features.__main__ import app
from features.answers.answers import NewAnswer, Trial, answer_row, append_answers
from features.database.engine import open_database
from features.inputs.shopper import ShopperQuery
from features.log.event_log import EventLog, NewEvent
from features.releases.release_table import ReleaseTable
from features.schema import EventType, Tier
from features.traffic.experiment import FirstClickCount, first_clicks
from features.traffic.experiment_report import experiment_report
from features.traffic.sequential_test import FirstClicks
from features.traffic.shadow_statistics import Disagreement, add_disagreements, disagreements
from features.traffic.split import Arm, Wanted
from features.traffic.traffic_table import TrafficTable
from tests.features.shops import NOBODY_ERASED
from tests.features.test_releases import manifest

T_MS = 1_790_000_000_000
CLICK, VIEW, IMPRESSION = EventType.CLICK, EventType.VIEW, EventType.IMPRESSION


def page(token: str, user: str, stage: int, arm: int, *, failed: bool = False, ms: float = 5.0) -> NewAnswer:
    return NewAnswer(
        attribution_token=token,
        query=ShopperQuery(user_id=user, session_id="", now_ms=T_MS),
        placement="home",
        options={},
        release=1 if failed else arm,
        tier=Tier.RECENT if failed else Tier.FULL,
        item_ids=["i1", "i2"],
        stored=True,
        inputs=None,
        trial=Trial("e", stage, arm),
        model_failed=failed,
        latency_ms=ms,
    )


def event(number: int, kind: EventType, item_id: str, token: str, user: str) -> NewEvent:
    return NewEvent(
        event_id=f"e{number}",
        event_type=kind,
        event_time_ms=T_MS + number,
        user_id=user,
        session_id=None,
        item_id=item_id,
        attribution_token=token,
    )


def fill(engine: Engine) -> tuple[int, int]:
    """Two stages of an experiment, 50 to 50 and then 75 to 25, and what five shoppers did; returns their numbers."""
    releases = ReleaseTable(engine)
    for number in (1, 2):
        releases.record(number, manifest(number), "test", "made")
    releases.change_state(1, "live", "test", "first")
    releases.load(2, "test", "to be tried")
    table = TrafficTable(engine)
    first = table.set(Wanted(experiment="e", arms=(Arm(1, 50), Arm(2, 50))), "anna", "to see").stage
    second = table.set(Wanted(experiment="e", arms=(Arm(1, 75), Arm(2, 25))), "anna", "less").stage
    pages = [
        page("a1", "anna", first, 1),
        page("a2", "anna", second, 1),
        page("b1", "ben", first, 2),
        page("b2", "ben", first, 2, failed=True, ms=95.0),
        page("c1", "cleo", second, 2),
        page("d1", "dora", second, 1),
        page("f1", "finn", second, 1),
    ]
    with engine.begin() as connection:
        append_answers(connection, NOBODY_ERASED, [answer_row(answer) for answer in pages])
    events = [
        event(1, CLICK, "i1", "b1", "ben"),
        event(2, CLICK, "i1", "b2", "ben"),  # counts no second time
        event(3, IMPRESSION, "i1", "a1", "anna"),  # no click
        event(4, CLICK, "i9", "a1", "anna"),  # not on the page
        event(5, VIEW, "i2", "a2", "anna"),  # her first
        event(6, CLICK, "i2", "c1", "cleo"),
        event(7, CLICK, "i2", "d1", "dora"),
    ]
    EventLog(engine).append(events, T_MS + 10)
    return first, second


def test_a_shopper_counts_once_at_the_first_click_with_the_share_of_that_stage(engine: Engine) -> None:
    first, second = fill(engine)
    count = FirstClickCount(engine, "e", 0)
    count.advance(T_MS + 10)
    assert not count.counts, "the log is read up to a time"
    count.advance(T_MS + 11)
    assert count.counts == {(first, 2): 1, (second, 1): 2, (second, 2): 1}
    EventLog(engine).append([event(8, CLICK, "i1", "f1", "finn"), event(9, CLICK, "i1", "c1", "cleo")], T_MS + 20)
    count.advance(T_MS + 30)
    again = FirstClickCount(engine, "e", 0)
    again.advance(T_MS + 30)
    assert count.counts == again.counts == {(first, 2): 1, (second, 1): 3, (second, 2): 1}
    assert first_clicks(count.counts, TrafficTable(engine).stages("e"), 1, 2) == [
        FirstClicks(0.5, 1, 1),
        FirstClicks(0.25, 1, 4),
    ]


def test_no_click_is_passed_over_where_the_gateways_clocks_differ(engine: Engine) -> None:
    first, second = fill(engine)
    count = FirstClickCount(engine, "e", EventLog(engine).last_position())
    ahead, behind, wrong = T_MS + 120, T_MS + 90, T_MS + 3_600_000
    log = EventLog(engine)
    log.append([event(11, CLICK, "i1", "a2", "anna")], ahead)
    log.append([event(12, CLICK, "i1", "b1", "ben")], behind)
    count.advance(T_MS + 100)
    assert not count.counts
    count.advance(T_MS + 121)
    assert count.counts == {(second, 1): 1, (first, 2): 1}
    log.append([event(13, CLICK, "i1", "c1", "cleo")], wrong)
    log.append([event(14, CLICK, "i1", "d1", "dora")], T_MS + 130)
    count.advance(T_MS + 140)
    assert count.counts == {(second, 1): 2, (first, 2): 1, (second, 2): 1}


def test_the_report_has_the_arms_side_by_side(engine: Engine) -> None:
    fill(engine)
    control, treatment = experiment_report(engine, "e", T_MS).arms
    assert (control.release, control.shoppers, control.answers, control.clicked.count) == (1, 3, 4, 2)
    assert (treatment.shoppers, treatment.answers, treatment.failed.count, treatment.clicked.count) == (2, 3, 1, 2)
    assert control.compared is None and treatment.compared is not None
    assert treatment.compared.clicked == 4 and treatment.compared.p_value > 0.5
    assert treatment.mean_ms == pytest.approx(35.0)


def test_the_command_shows_the_experiments_of_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAID_HOME", str(tmp_path))
    engine = open_database(f"sqlite:///{tmp_path / 'braid.db'}")
    fill(engine)
    engine.dispose()
    window = ["--since", "2026-09-01", "--until", "2026-09-22"]
    table = CliRunner().invoke(app, ["report", *window], env={"COLUMNS": "200"})
    assert table.exit_code == 0, table.output
    assert "Experiment e" in table.output and "control" in table.output
    headings = ("shoppers", "answers", "model failed", "mean ms", "shoppers who clicked", "ratio", "p, any time")
    assert re.search(r"\W+".join(headings), table.output)
    assert re.search(r"release 1\W+3\W+4\W", table.output) and re.search(r"release 2\W+2\W+3\W", table.output)
    (experiment,) = json.loads(CliRunner().invoke(app, ["report", *window, "--json"]).stdout)["experiments"]
    assert [arm["release"] for arm in experiment["arms"]] == [1, 2]


def test_disagreements_of_all_processes_add_up(engine: Engine) -> None:
    part = Disagreement()
    assert part.compare(["a", "b", "c", "d"], [4, 3, 2, 1], ["b", "a", "c", "x"], [3.5, 3.5, 2, 0]) == 0.75
    assert part.correlation == pytest.approx(0.5) and part.score_difference == pytest.approx(1 / 3)
    part.compare(["a"], [1.0], ["z"], [1.0])
    assert (part.compared, part.correlated, part.scored, part.overlap) == (2, 1, 1, 0.75)
    for _ in range(2):
        add_disagreements(engine, {("e", 2, 1): part, ("e", 3, 1): Disagreement(dropped=1)})
    found = disagreements(engine, ["e"])
    assert found["e", 2, 1].compared == 4 and found["e", 3, 1] == Disagreement(dropped=2)
    assert disagreements(engine, ["other"]) == {}
