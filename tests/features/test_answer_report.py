"""The report's figures against fractions worked out by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from features.__main__ import app
from features.answers.answer_report import Line, Rate, report
from features.answers.answers import EXPLORED, NewAnswer, answer_row, append_answers
from features.database.engine import open_database
from features.inputs.shopper import ShopperQuery
from features.log.event_log import EventLog, NewEvent
from features.schema import EventType
from features.shop.catalogue import Catalogue, CatalogueItem
from tests.features.shops import NOBODY_ERASED

T_MS = 1_790_000_000_000
DAY_MS = 86_400_000
VIEW, PURCHASE, IMPRESSION, CLICK = EventType.VIEW, EventType.PURCHASE, EventType.IMPRESSION, EventType.CLICK


def answer(
    token: str,
    items: str,
    *,
    release: int = 1,
    tier: int = 1,
    placement: str = "home",
    at_ms: int = T_MS,
    explored: tuple[str, ...] = (),
) -> NewAnswer:
    query = ShopperQuery(user_id="anna", session_id="", now_ms=at_ms)
    return NewAnswer(
        attribution_token=token,
        query=query,
        placement=placement,
        options={EXPLORED: explored} if explored else {},
        release=release,
        tier=tier,
        item_ids=items.split(),
        stored=True,
        inputs=None,
    )


def event(number: int, kind: EventType, item_id: str, token: str | None, at_ms: int = T_MS + 1_000) -> NewEvent:
    return NewEvent(
        event_id=f"e{number}",
        event_type=kind,
        event_time_ms=at_ms,
        user_id="anna",
        session_id=None,
        item_id=item_id,
        attribution_token=token,
    )


@pytest.fixture
def shop(engine: Engine) -> Engine:
    """Four pages of eleven impressions, on a catalogue of ten items (one more is deleted)."""
    fill(engine)
    return engine


def fill(engine: Engine) -> None:
    catalogue = Catalogue(engine)
    catalogue.upsert([CatalogueItem(item_id=f"i{number}", category_path=["Top"]) for number in range(11)])
    catalogue.delete(["i10"])
    answers = [
        answer("first", "i0 i1 i2 i3"),
        answer("second", "i0 i1 i4", release=2, placement="basket", explored=("i4",)),
        answer("third", "i5 i6 i0", release=0, tier=4),
        answer("fourth", "i7", release=2, explored=("i7",)),
        answer("ranked", "", placement=""),  # Rank: what was shown is not known
        answer("before", "i9", at_ms=T_MS - 1),
        answer("after", "i9", at_ms=T_MS + DAY_MS),
    ]
    with engine.begin() as connection:
        append_answers(connection, NOBODY_ERASED, [answer_row(one) for one in answers])
    EventLog(engine).append(
        [
            event(0, IMPRESSION, "i3", "first"),  # the shop's act
            event(1, CLICK, "i0", "first"),
            event(2, VIEW, "i0", "first"),  # the same impression
            event(3, PURCHASE, "i0", "first", T_MS + 7 * DAY_MS),
            event(4, VIEW, "i1", "first"),
            event(5, VIEW, "i9", "first"),  # not on the page
            event(6, CLICK, "i4", "second"),
            event(7, PURCHASE, "i4", "second", T_MS + 7 * DAY_MS + 1),  # too late
            event(8, PURCHASE, "i5", "third"),
            event(9, PURCHASE, "i6", None),  # nobody knows from where
            event(10, CLICK, "i7", "made-up"),
            event(11, CLICK, "i7", "made-up", T_MS - 5),
            event(12, CLICK, "i9", "before"),
            event(13, CLICK, "i1", "ranked"),
        ],
        T_MS,
    )


def group(lines: list[Line], dimension: str, value: str = "") -> Line:
    (line,) = [line for line in lines if (line.dimension, line.value) == (dimension, value)]
    return line


def test_items_that_are_no_longer_sold_are_shown_and_cover_nothing(shop: Engine) -> None:
    before = group(report(shop, T_MS, T_MS + DAY_MS).lines, "all")
    Catalogue(shop).delete([f"i{number}" for number in range(7)])
    after = group(report(shop, T_MS, T_MS + DAY_MS).lines, "all")
    assert (before.items_shown, before.coverage) == (8, 0.8)
    assert (after.items_shown, after.coverage) == (8, 1 / 3)  # i7 of i7, i8 and i9


def test_figures_are_those_worked_out_by_hand(shop: Engine) -> None:
    found = report(shop, T_MS, T_MS + DAY_MS)
    everything = group(found.lines, "all")
    assert (everything.answers, everything.impressions) == (4, 11)
    assert (everything.clicked.count, everything.clicked.total) == (4, 11)  # first: i0, i1; second: i4; third: i5
    assert (everything.converted.count, everything.converted.total) == (2, 11)  # first: i0; third: i5
    assert (everything.items_shown, everything.coverage) == (8, 0.8)
    by_release = {line.value: line for line in found.lines if line.dimension == "release"}
    assert {
        value: (line.clicked.count, line.converted.count, line.impressions) for value, line in by_release.items()
    } == {
        "0": (1, 1, 3),
        "1": (2, 1, 4),
        "2": (1, 0, 4),
    }
    assert {value: line.items_shown for value, line in by_release.items()} == {"0": 3, "1": 4, "2": 4}
    assert group(found.lines, "placement", "basket").clicked.share == 1 / 3
    assert group(found.lines, "placement", "home").items_shown == 7
    assert group(found.lines, "tier", "popular").converted.share == 1 / 3
    assert group(found.lines, "tier", "full").clicked.share == 3 / 8


def test_a_placement_is_shown_as_its_caller_named_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAID_HOME", str(tmp_path))
    engine = open_database(f"sqlite:///{tmp_path / 'braid.db'}")
    with engine.begin() as connection:
        append_answers(connection, NOBODY_ERASED, [answer_row(answer("t", "i0", placement="home [/b]"))])
    engine.dispose()
    shown = CliRunner().invoke(
        app, ["report", "--since", "2026-09-01", "--until", "2027-01-01"], env={"COLUMNS": "200"}
    )
    assert shown.exit_code == 0, shown.output
    assert "placement home [/b]" in shown.output


def test_places_given_away_to_explore_are_told_apart(shop: Engine) -> None:
    lines = report(shop, T_MS, T_MS + DAY_MS, by=["slot"]).lines
    explored, ranked = group(lines, "slot", "explored"), group(lines, "slot", "ranked")
    assert (explored.answers, explored.impressions, explored.clicked.count) == (2, 2, 1)  # i4 of second; i7 of fourth
    assert (ranked.answers, ranked.impressions, ranked.clicked.count) == (3, 9, 3)
    assert (explored.items_shown, ranked.items_shown) == (2, 6)


def test_a_token_that_no_answer_has_is_counted_apart(shop: Engine) -> None:
    assert report(shop, T_MS, T_MS + DAY_MS).unknown_token_events == 1
    assert report(shop, T_MS - DAY_MS, T_MS + DAY_MS).unknown_token_events == 2


def test_one_dimension_alone(shop: Engine) -> None:
    lines = report(shop, T_MS, T_MS + DAY_MS, by=["tier"]).lines
    assert [(line.dimension, line.value) for line in lines] == [("all", ""), ("tier", "full"), ("tier", "popular")]


def test_an_empty_window_has_no_lines(engine: Engine) -> None:
    assert report(engine, T_MS, T_MS + 1).lines == []


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_those_of_the_literature(count: int, total: int, low: float, high: float) -> None:
    rate = Rate.of(count, total)
    assert rate.share == count / total
    assert (rate.low, rate.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_the_command_prints_a_table_or_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAID_HOME", str(tmp_path))
    engine = open_database(f"sqlite:///{tmp_path / 'braid.db'}")
    fill(engine)
    engine.dispose()
    window = ["--since", "2026-09-01", "--until", "2026-09-22"]  # "after" is of the 22nd
    table = CliRunner().invoke(app, ["report", *window], env={"COLUMNS": "200"})
    assert table.exit_code == 0, table.output
    assert "release 2" in table.output and "placement basket" in table.output and "tier popular" in table.output
    assert "2 events" in table.output
    headings = ("answers", "impressions", "click-through", "conversion", "items shown", "coverage")
    assert re.search(r"\W+".join(headings), table.output)
    document = json.loads(CliRunner().invoke(app, ["report", *window, "--by", "release", "--json"]).stdout)
    assert [line["value"] for line in document["lines"]] == ["", "0", "1", "2"]
    assert document["lines"][0]["clicked"]["count"] == 5
    none = CliRunner().invoke(app, ["report", "--since", "2020-01-01", "--until", "2020-01-02"])
    assert none.exit_code == 0 and "No answers" in none.output
    wrong = CliRunner().invoke(app, ["report", "--since", "2026-09-02", "--until", "2026-09-01"])
    assert wrong.exit_code == 2 and "--since" in wrong.output
