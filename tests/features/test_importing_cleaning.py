"""Cleaning is visible: each rule counted, each rejected row kept with its reason, its neighbours untouched."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.settings import Settings
from tests.features.import_shop import PLAIN, Shop, rejected

GOOD = "view,ann,cup,2024-05-01T10:00:00Z"


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(Settings(home=tmp_path / "home"), tmp_path)


def with_rules(**rules: object) -> dict[str, Any]:
    return deepcopy(PLAIN) | {"rules": rules}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("view,,cup,2024-05-01T10:00:00Z", "missing_user"),
        ("view,  ,cup,2024-05-01T10:00:00Z", "missing_user"),
        ("view,ann,,2024-05-01T10:00:00Z", "missing_item"),
        ("view,ann,cup,", "missing_time"),
        (",ann,cup,2024-05-01T10:00:00Z", "missing_type"),
        ("sold,ann,cup,2024-05-01T10:00:00Z", "unknown_type"),
        ("view,ann,cup,yesterday", "unreadable_time"),
        ("view,ann,cup,2024-13-01T10:00:00Z", "unreadable_time"),
        ("view,ann,cup,1970-01-01T00:00:00Z", "absurd_time"),
        ("view,ann,cup,2999-01-01T00:00:00Z", "absurd_time"),
        (f"view,{'x' * 129},cup,2024-05-01T10:00:00Z", "too_long"),
        (f"view,ann,{'x' * 129},2024-05-01T10:00:00Z", "too_long"),
        ("view,ann", "unreadable_line"),
        ("view,ann,cup,2024-05-01T10:00:00Z,more", "unreadable_line"),
        ('view,"an"n,cup,2024-05-01T10:00:00Z', "unreadable_line"),
    ],
)
def test_a_bad_row_is_counted_and_its_neighbours_are_kept(shop: Shop, row: str, reason: str) -> None:
    section = shop.load_rows([GOOD, row, GOOD.replace("cup", "pot")])
    assert section.rejected == {reason: 1}
    assert (section.rows, section.new) == (3, 2)
    assert sorted(shop.events()["item_id"]) == ["cup", "pot"]
    kept = rejected(section)
    assert kept["reason"].to_list() == [reason]
    if reason == "unreadable_line":
        assert kept["line"].to_list() == [3] and kept["line_text"][0].startswith(row)
    else:
        assert kept["row"].to_list() == [2]
        assert kept.select("what", "who", "thing", "when").fill_null("").row(0) == tuple(row.split(","))


def test_good_lines_behind_a_stray_quotation_mark_are_given_back(shop: Shop) -> None:
    good = [f"view,ann,item{number},2024-05-01T10:00:{number:02}Z" for number in range(30)]
    stray = 'view,ann,"cup,2024-05-01T10:00:00Z'
    quoted = 'view,ann,"a ""fine"" cup, really",2024-05-01T10:00:00Z'
    section = shop.load_rows([*good[:10], stray, *good[10:20], quoted, *good[20:], stray, good[0]])
    assert section.rejected == {"unreadable_line": 2, "duplicate": 1}
    assert section.rows == 34
    assert set(shop.events()["item_id"]) == {f"item{number}" for number in range(30)} | {'a "fine" cup, really'}
    kept = rejected(section)
    assert kept.filter(pl.col("reason") == "unreadable_line")["line_text"].to_list() == [stray, stray]
    assert kept.filter(pl.col("reason") == "duplicate")["thing"].to_list() == ["item0"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("purchase,ann,cup,2024-05-01,-1,2", "impossible_quantity"),
        ("purchase,ann,cup,2024-05-01,0,2", "impossible_quantity"),
        ("purchase,ann,cup,2024-05-01,1e9,2", "impossible_quantity"),
        ("purchase,ann,cup,2024-05-01,nan,2", "impossible_quantity"),
        ("purchase,ann,cup,2024-05-01,1,-0.01", "impossible_price"),
        ("purchase,ann,cup,2024-05-01,1,0", "impossible_price"),
        ("purchase,ann,cup,2024-05-01,one,2", "unreadable_number"),
        ("purchase,ann,cup,2024-05-01,1,2", None),
        ("purchase,ann,cup,2024-05-01,,", None),
        ("view,ann,cup,2024-05-01,0,0", None),
    ],
)
def test_impossible_quantities_and_prices(shop: Shop, row: str, reason: str | None) -> None:
    rules = with_rules(positive_quantity=True, positive_price=True)
    section = shop.load_rows(["view,ann,cup,2024-05-02,,", row], rules, "what,who,thing,when,pieces,price")
    assert section.rejected == ({reason: 1} if reason else {})


def test_a_price_of_zero_is_kept_unless_the_mapping_says_otherwise(shop: Shop) -> None:
    section = shop.load_rows(["purchase,ann,cup,2024-05-01,1,0"], header="what,who,thing,when,pieces,price")
    assert section.new == 1


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_what_a_database_writes_for_nothing_is_no_shopper(shop: Shop, kind: str) -> None:
    rows = [
        ("view", who, "cup", f"2024-05-01T10:00:0{n}Z", price)
        for n, (who, price) in enumerate([("NULL", "NULL"), ("\\N", "2"), ("ann", "NULL"), ("null", "3")])
    ]
    frame = pl.DataFrame(rows, schema=["what", "who", "thing", "when", "price"], orient="row")
    file = shop.folder / f"shop.{kind}"
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[kind](file)
    mapping = deepcopy(PLAIN)
    mapping["events"]["nulls"] = ["NULL", "\\N"]
    section = shop.load(file, shop.mapping(mapping)).sections[0]
    assert section.rejected == {"missing_user": 2}
    assert shop.events().select("shopper", "price").rows() == [("u:ann", None), ("u:null", 3.0)]


def test_rules_of_the_mapping(shop: Shop) -> None:
    mapping = with_rules(
        cancelled_orders={"column": "order", "prefix": "C"},
        service_codes=["POST", "BANK CHARGES"],
        minimum={"rating": 3},
    )
    mapping["events"]["order"] = "order"
    section = shop.load_rows(
        [
            "view,ann,cup,2024-05-01,1,5",
            "view,ann,cup,2024-05-01,C1,5",
            "view,ann,post,2024-05-01,2,5",
            "view,ann,Bank Charges,2024-05-01,2,5",
            "view,ann,postcard,2024-05-01,2,5",
            "view,ann,pot,2024-05-01,3,2.5",
            "view,ann,pot,2024-05-01,4,3",
        ],
        mapping,
        "what,who,thing,when,order,rating",
    )
    assert section.rejected == {"cancelled_order": 1, "service_code": 2, "below_minimum": 1}
    assert sorted(shop.events()["item_id"]) == ["cup", "postcard", "pot"]


def test_exact_duplicates_are_kept_once_wherever_they_stand(shop: Shop) -> None:
    rows = [f"view,ann,item {number % 300},2024-05-01T10:{number % 60:02}:00Z" for number in range(900)]
    section = shop.load_rows(rows)
    assert section.rejected == {"duplicate": 600}
    assert shop.events().height == 300
    first = rejected(section)
    assert first["row"].to_list() == list(range(301, 901))


def test_events_that_differ_in_quantity_or_order_are_no_duplicates(shop: Shop) -> None:
    rows = ["purchase,ann,cup,2024-05-01,1,2", "purchase,ann,cup,2024-05-01,2,2", "purchase,ann,cup,2024-05-01,1,3"]
    assert shop.load_rows(rows, header="what,who,thing,when,pieces,price").new == 3


def test_equal_rows_are_events_of_their_own_when_the_rule_is_off(shop: Shop) -> None:
    rules = with_rules(duplicates=False)
    stray = 'view,ann,"cup,2024-05-01T10:00:00Z'
    section = shop.load_rows([GOOD, GOOD.replace("cup", "pot"), GOOD, stray, GOOD], rules)
    assert (section.new, section.already_stored, section.rejected) == (4, 0, {"unreadable_line": 1})
    before = shop.events()
    again = shop.load_rows([GOOD, GOOD, GOOD.replace("cup", "pot"), GOOD], rules)
    assert (again.new, again.already_stored) == (0, 4)
    assert shop.events().equals(before)
    assert (shop.load_rows([GOOD]).new, shop.load_rows([GOOD] * 4, rules).new) == (0, 1)


def test_events_of_one_id_stay_one_event_even_when_the_rule_is_off(shop: Shop) -> None:
    mapping = with_rules(duplicates=False)
    mapping["events"]["event_id"] = "id"
    section = shop.load_rows([f"{GOOD},e1", f"{GOOD},e1", f"{GOOD},", f"{GOOD},"], mapping, "what,who,thing,when,id")
    assert (section.new, section.already_stored, section.rejected) == (3, 1, {})


def test_a_burst_of_a_bot_is_rejected_and_nothing_else(shop: Shop) -> None:
    bot = [f"view,bot,item{number},2024-05-01T10:00:{number // 2:02}Z" for number in range(61)]
    person = [f"view,ann,item{number},2024-05-01T10:00:{number:02}Z" for number in range(60)]
    later = ["view,bot,cup,2024-05-01T11:00:00Z"]
    shown = [f"impression,eve,item{number},2024-05-01T10:00:00Z" for number in range(200)]
    order = [f"purchase,eve,item{number},2024-05-01T10:00:00Z" for number in range(200)]
    section = shop.load_rows([*bot, *person, *later, *shown, *order])
    assert section.rejected == {"burst": 61}
    assert shop.events().filter(pl.col("shopper") == "u:bot")["item_id"].to_list() == ["cup"]


def test_a_steady_bot_is_caught_by_the_hour(shop: Shop) -> None:
    rows = [f"click,bot,item{number},2024-05-01T10:{number // 25:02}:{number % 25:02}Z" for number in range(1_250)]
    assert shop.load_rows(rows).rejected == {"burst": 1_250}
    relaxed = with_rules(bursts={"per_minute": None, "per_hour": None})
    assert shop.load_rows(rows, relaxed).new == 1_250


def test_a_row_that_bursts_by_minute_and_hour_is_counted_once(shop: Shop) -> None:
    rows = [f"view,bot,item{number},2024-05-01T10:00:{number % 60:02}Z" for number in range(1_300)]
    section = shop.load_rows(rows)
    assert section.rejected == {"burst": 1_300}
    assert rejected(section).height == 1_300


def test_importing_again_changes_nothing(shop: Shop) -> None:
    mapping = deepcopy(PLAIN) | {"items": {"source": "events", "id": "thing", "price": "price"}}
    header, rows = (
        "what,who,thing,when,pieces,price",
        ["purchase,ann,cup,2024-05-01,1,2", "purchase,bob,pot,2024-05-02,,3"],
    )
    assert shop.load_rows(rows, mapping, header).new == 2
    before, revision = shop.events(), shop.revision()
    again = shop.load_rows(list(reversed(rows)), mapping, header)
    assert (again.new, again.already_stored) == (0, 2)
    assert shop.events().equals(before)
    assert shop.revision() == revision
    longer = shop.load_rows([*rows, "view,ann,pan,2024-05-03,,"], mapping, header)
    assert (longer.new, longer.already_stored) == (1, 2)


def test_the_log_is_in_the_order_of_time(shop: Shop) -> None:
    shop.load_rows([f"view,ann,item{day},2024-05-{day:02}" for day in (9, 3, 7, 1)])
    assert shop.events()["item_id"].to_list() == ["item1", "item3", "item7", "item9"]


def test_every_row_is_accounted_for(shop: Shop) -> None:
    rows = [GOOD, GOOD, GOOD.replace("ann", ""), "bad", "view,ann,pot,never", GOOD.replace("cup", "pan")]
    file = shop.write("rows.csv", "\n".join(["what,who,thing,when", *rows]) + "\n")
    target = shop.folder / "out" / "report.json"
    report = shop.load(file, shop.mapping(), report=target)
    section = report.sections[0]
    assert section.rows == 6 == section.new + sum(section.rejected.values())
    assert rejected(section).height == sum(section.rejected.values())
    written = json.loads(target.read_text())
    assert written["sections"][0]["rejected"] == section.rejected
    assert written["mapping"] == "own"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(
        st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=128).filter(str.strip),
        min_size=1,
        max_size=8,
        unique=True,
    )
)
def test_any_id_is_kept_exactly_as_it_stands(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    folder = tmp_path_factory.mktemp("ids")
    shop = Shop(Settings(home=folder / "home"), folder)
    frame = pl.DataFrame(
        {"what": "view", "who": ids, "thing": ids, "when": [1_700_000_000 + i for i in range(len(ids))]}
    )
    for file in (folder / "ids.parquet", folder / "ids.csv"):
        frame.write_parquet(file) if file.suffix == ".parquet" else frame.write_csv(file, quote_style="always")
        shop.load(file, shop.mapping())
        assert shop.events()["item_id"].to_list() == ids
        assert shop.events()["shopper"].to_list() == [f"u:{value}" for value in ids]
