"""Bad input ends in one clear line and exit code 2, or in a sensible result; never in a traceback."""

from __future__ import annotations

import gzip
import random
from copy import deepcopy
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from features.__main__ import app
from features.settings import Settings
from tests.features.import_shop import PLAIN, Shop, write_excel

GOOD = "what,who,thing,when\nview,ann,cup,2024-05-01T10:00:00Z\n"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("BRAID_HOME", str(tmp_path / "home"))
    return Shop(Settings(home=tmp_path / "home"), tmp_path)


def refused(*arguments: object) -> str:
    """The message of an import that is refused."""
    result = CliRunner().invoke(app, ["import", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    assert "Traceback" not in result.output
    return lines[0]


def refused_text(shop: Shop, text: str, mapping: Any = PLAIN, name: str = "shop.csv") -> str:
    return refused(shop.write(name, text), "--mapping", shop.mapping(mapping))


def changed(**fields: object) -> dict[str, Any]:
    mapping: dict[str, Any] = deepcopy(PLAIN)
    for name, value in fields.items():
        mapping["events"][name] = value
    return {"events": {name: value for name, value in mapping["events"].items() if value is not None}}


def test_a_missing_file(shop: Shop) -> None:
    assert "no such file" in refused(shop.folder / "none.csv")
    assert "no such file" in refused(shop.folder / "none.csv", "--mapping", "taobao")


def test_a_folder(shop: Shop) -> None:
    assert "is a folder" in refused(shop.folder)


def test_an_unknown_format(shop: Shop) -> None:
    message = refused(shop.write("shop.doc", GOOD))
    assert "shop.doc" in message and ".parquet" in message


@pytest.mark.parametrize("name", ["shop.csv", "shop.parquet", "shop.xlsx", "shop.jsonl"])
def test_an_empty_file(shop: Shop, name: str) -> None:
    assert "empty (0 bytes)" in refused(shop.write(name, ""), "--mapping", shop.mapping())


def test_a_file_with_a_header_alone(shop: Shop) -> None:
    assert "no rows of data" in refused_text(shop, "what,who,thing,when\n")


def test_a_missing_column_is_named_beside_those_there_are(shop: Shop) -> None:
    message = refused_text(shop, GOOD.replace("who", "customer"))
    assert all(word in message for word in ("'who'", "events.user", "'customer'", "shop.csv"))


def test_a_column_of_the_wrong_type(shop: Shop) -> None:
    file = shop.folder / "shop.parquet"
    pl.DataFrame({"what": ["view"], "who": [["ann", "bob"]], "thing": ["cup"], "when": [1_700_000_000]}).write_parquet(
        file
    )
    message = refused(file, "--mapping", shop.mapping())
    assert "'who'" in message and "VARCHAR[]" in message and "expected" in message


def test_numbers_that_are_none(shop: Shop) -> None:
    text = "what,who,thing,when,price\nview,ann,cup,2024-05-01,cheap\nview,ann,pot,2024-05-01,dear\n"
    message = refused_text(shop, text)
    assert "'cheap'" in message and "price" in message and "number" in message


def test_event_types_that_the_mapping_does_not_know(shop: Shop) -> None:
    message = refused_text(shop, GOOD.replace("view", "gesehen"))
    assert "'gesehen'" in message and "events.type.values" in message


@pytest.mark.parametrize(
    ("row", "column", "field"),
    [
        ("view,,cup,2024-05-01", "who", "events.user"),
        ("view,ann,,2024-05-01", "thing", "events.item"),
        ("view,ann,cup,", "when", "events.time"),
        (",ann,cup,2024-05-01", "what", "events.type"),
    ],
)
def test_a_column_that_is_empty_in_every_row(shop: Shop, row: str, column: str, field: str) -> None:
    message = refused_text(shop, "\n".join(["what,who,thing,when", row, row.replace("05-01", "05-02")]))
    assert f"{column} is empty" in message and field in message and "shop.csv" in message


def test_an_id_that_is_an_object_or_an_array_of_json_is_none(shop: Shop) -> None:
    line = '{{"what": "view", "who": {}, "thing": "cup", "when": "2024-05-01T10:00:0{}Z"}}\n'
    nested = [line.format('{"id": "ann"}', 1), line.format('["ann"]', 2)]
    section = shop.load(shop.write("good.jsonl", "".join([*nested, line.format("7", 3)])), shop.mapping()).sections[0]
    assert section.rejected == {"missing_user": 2}
    assert shop.events()["shopper"].to_list() == ["u:7"]
    message = refused_text(shop, "".join(nested), name="bad.jsonl")
    assert "who is empty or no single value" in message and "events.user" in message


def test_lines_that_all_have_another_number_of_fields(shop: Shop) -> None:
    message = refused_text(shop, "what,who,thing,when\nview,ann,cup,2024-05-01,1,2\nview,bob,cup,2024-05-01,1,2\n")
    assert "line 2, 'view,ann,cup,2024-05-01,1,2'" in message and "what, who, thing, when" in message


def test_an_unreadable_date(shop: Shop) -> None:
    message = refused_text(shop, GOOD.replace("2024-05-01T10:00:00Z", "1. Mai 2024"))
    assert "'1. Mai 2024'" in message and "events.time.formats" in message


def test_a_date_pattern_makes_it_readable(shop: Shop) -> None:
    file = shop.write("shop.csv", GOOD.replace("2024-05-01T10:00:00Z", "01.05.2024 10.00"))
    mapping = changed(time={"column": "when", "formats": ["%d.%m.%Y %H.%M"], "timezone": "Europe/Berlin"})
    shop.load(file, shop.mapping(mapping))
    moment = datetime(2024, 5, 1, 8, tzinfo=timezone.utc)
    assert shop.events()["event_time_ms"].to_list() == [int(moment.timestamp() * 1000)]


@pytest.mark.parametrize(("written", "form"), [("27/11/23 10:00", "%d/%m/%y %H:%M"), ("2023-27-11", "%Y-%d-%m")])
def test_a_date_pattern_holds_where_the_text_is_a_date_of_another_kind_too(shop: Shop, written: str, form: str) -> None:
    rows = [f"view,ann,cup,{written}", "view,ann,pot," + written.replace("27", "09")]
    mapping = changed(time={"column": "when", "formats": [form]})
    section = shop.load_rows(rows, mapping)
    assert section.rejected == {}
    days = [datetime.fromtimestamp(ms / 1000, timezone.utc) for ms in shop.events()["event_time_ms"]]
    assert [(day.year, day.month, day.day) for day in days] == [(2023, 11, 9), (2023, 11, 27)]


def test_times_that_are_all_beyond_the_days_of_the_mapping(shop: Shop) -> None:
    message = refused_text(shop, GOOD.replace("2024-05-01T10:00:00Z", "27/11/23 10:00"))
    assert "'27/11/23 10:00'" in message and "events.time.formats" in message and "rules.earliest" in message
    seconds = changed(time={"column": "when", "unit": "s"})
    assert "events.time.unit" in refused_text(shop, GOOD.replace("2024-05-01T10:00:00Z", "1714557600000"), seconds)


def test_mixed_time_zones(shop: Shop) -> None:
    text = GOOD + "view,ann,pot,2024-05-01T10:00:00\nview,ann,pan,2024-05-01T10:00:00+02:00\n"
    message = refused_text(shop, text)
    assert "mixes times with and without a UTC offset" in message and "events.time.timezone" in message
    shop.load(shop.folder / "shop.csv", shop.mapping(changed(time={"column": "when", "timezone": "America/New_York"})))
    hours = [datetime.fromtimestamp(ms / 1000, timezone.utc).hour for ms in shop.events()["event_time_ms"]]
    assert hours == [8, 10, 14]


def test_offsets_of_different_zones_are_each_honoured(shop: Shop) -> None:
    file = shop.write("shop.csv", GOOD + "view,ann,pot,2024-05-01T12:00:00+02:00\n")
    shop.load(file, shop.mapping())
    assert shop.events()["event_time_ms"].n_unique() == 1


def test_a_column_of_types_or_times_may_be_named_alone(shop: Shop) -> None:
    shop.load(shop.write("shop.csv", GOOD), shop.mapping(changed(type="what", time=["time", "when"])))
    assert shop.events().select("event_type", "item_id").rows() == [(1, "cup")]


def test_a_mapping_without_a_shopper(shop: Shop) -> None:
    message = refused_text(shop, GOOD, changed(user=None))
    assert "own.yaml" in message and "names no user column" in message


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        (changed(item=None), ["events.item", "Field required"]),
        (changed(colour="red"), ["events.colour"]),
        (changed(type={"constant": "sold"}), ["sold", "purchase"]),
        (changed(type={}), ["column", "constant"]),
        (changed(time={"column": "when", "timezone": "Mars"}), ["'Mars'", "Europe/London"]),
        (PLAIN | {"items": {"id": "i", "launch_time": {"column": "l", "timezone": "UTC"}}}, ["items.launch_time"]),
        (PLAIN | {"items": {"id": "i", "launch_time": {"column": "l", "formats": ["%d", "%m"]}}}, ["give the one"]),
        (changed(nulls=[None]), ["events.nulls", 'write nulls: ["NULL"]']),
        (PLAIN | {"rules": {"bursts": {"per_minute": 0}}}, ["rules.bursts.per_minute"]),
        (["no", "mapping"], ["own.yaml"]),
        (None, ["own.yaml"]),
    ],
)
def test_a_wrong_mapping_names_the_field(shop: Shop, mapping: Any, words: list[str]) -> None:
    message = refused_text(shop, GOOD, mapping)
    assert all(word in message for word in words), message


def test_a_mapping_that_is_no_yaml_or_not_there(shop: Shop) -> None:
    file = shop.write("shop.csv", GOOD)
    assert "YAML" in refused(file, "--mapping", shop.write("bad.yaml", "a: [1\n b: {"))
    assert "online_retail" in refused(file, "--mapping", "online_retial")


def test_columns_that_no_ready_mapping_knows(shop: Shop) -> None:
    message = refused(shop.write("shop.csv", GOOD))
    assert "what, who, thing, when" in message and "--mapping FILE.yaml" in message


def test_broken_files(shop: Shop) -> None:
    whole = shop.folder / "whole.parquet"
    pl.DataFrame({"what": ["view"] * 9, "who": "ann", "thing": "cup", "when": 1_700_000_000}).write_parquet(whole)
    cut = shop.folder / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-20])
    assert "cut.parquet" in refused(cut, "--mapping", shop.mapping())
    assert "Parquet" in refused(shop.write("text.parquet", GOOD), "--mapping", shop.mapping())
    assert "Excel" in refused(shop.write("text.xlsx", GOOD), "--mapping", shop.mapping())
    zipped = shop.folder / "cut.csv.gz"
    zipped.write_bytes(gzip.compress((GOOD * 500).encode())[:-15])
    assert "cut.csv.gz" in refused(zipped, "--mapping", shop.mapping())
    assert "cut.csv.gz" in refused(zipped)
    assert "text file" in refused(shop.write("binary.csv", "a\x00b\n"), "--mapping", shop.mapping())
    assert "JSON" in refused(shop.write("text.jsonl", GOOD), "--mapping", shop.mapping())
    array = refused(shop.write("array.json", '[{"what": "view"},\n{"what": "view"}]'), "--mapping", shop.mapping())
    assert "jq -c '.[]' array.json > array.jsonl" in array


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_nul_in_the_first_rows_costs_its_row_alone(shop: Shop, encoding: str) -> None:
    rows = ["view,a\x00nn,pan,2024-05-01T10:00:00Z", "view,jörg,pot,2024-05-01T10:00:00Z"]
    file = shop.folder / "shop.csv"
    file.write_bytes("\n".join(["what,who,thing,when", *rows, ""]).encode(encoding))
    report = shop.load(file, shop.mapping())
    assert (report.sections[0].new, report.sections[0].rejected) == (1, {"nul_character": 1})
    assert shop.events()["shopper"].to_list() == ["u:jörg"]


def test_a_nul_in_the_first_row_without_a_header_or_as_json_costs_its_row_alone(shop: Shop) -> None:
    mapping = PLAIN | {"events": PLAIN["events"] | {"columns": ["what", "who", "thing", "when"]}}
    rows = GOOD.splitlines()[1].replace("ann", "a\x00nn") + "\n" + GOOD.splitlines()[1]
    report = shop.load(shop.write("shop.csv", rows), shop.mapping(mapping))
    assert (report.sections[0].new, report.sections[0].rejected) == (1, {"nul_character": 1})
    good = '{"what": "view", "who": "bob", "thing": "cup", "when": "2024-05-01T10:00:00Z"}'
    lines = good.replace("bob", "b\x00ob") + "\n" + good
    report = shop.load(shop.write("shop.jsonl", lines), shop.mapping())
    assert (report.sections[0].new, report.sections[0].rejected) == (1, {"unreadable_line": 1})


@pytest.mark.parametrize(
    "content",
    [
        GOOD.encode("utf-16"),
        gzip.compress((GOOD * 500).encode()),
        random.Random(1).randbytes(20_000),
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + random.Random(2).randbytes(3_000),
    ],
    ids=["UTF-16", "gzip", "random", "PNG"],
)
def test_a_binary_file_is_refused_whole(shop: Shop, content: bytes) -> None:
    file = shop.folder / "shop.csv"
    file.write_bytes(content)
    assert "text file" in refused(file, "--mapping", shop.mapping())
    assert shop.events().is_empty()


def test_a_nul_in_a_column_name(shop: Shop) -> None:
    assert "'pri\\x00ce'" in refused_text(shop, GOOD.replace("when", "when,pri\x00ce").replace("Z", "Z,1"))


def test_a_damaged_page_inside_parquet(shop: Shop) -> None:
    file = shop.folder / "damaged.parquet"
    rows = 5_000
    columns = {
        "what": ["view"] * rows,
        "who": [f"u{i * 7919}" for i in range(rows)],
        "thing": "cup",
        "when": 1_700_000_000,
    }
    pl.DataFrame(columns).write_parquet(file, compression="zstd")
    content = bytearray(file.read_bytes())
    content[200:2_000] = bytes(1_800)
    file.write_bytes(bytes(content))
    assert "damaged.parquet" in refused(file, "--mapping", shop.mapping())
    assert shop.events().is_empty()


def test_an_empty_sheet(shop: Shop) -> None:
    file = write_excel(shop.folder / "shop.xlsx", [["what", "who", "thing", "when"]])
    assert "no rows" in refused(file, "--mapping", shop.mapping())


def test_two_columns_of_one_name(shop: Shop) -> None:
    assert "'who'" in refused_text(shop, GOOD.replace("thing", "who"))


def test_a_file_of_items_that_is_missing_or_unwanted(shop: Shop) -> None:
    file = shop.write("shop.csv", GOOD)
    wanted = shop.mapping(PLAIN | {"items": {"id": "id", "title": "title"}}, "wanted.yaml")
    assert "no such file" in refused(file, "--mapping", wanted, "--items", shop.folder / "none.csv")
    assert "'title'" in refused(file, "--mapping", wanted, "--items", shop.write("items.csv", "id\ncup\n"))
    assert "section `items`" in refused(file, "--mapping", shop.mapping(), "--items", file)
    assert shop.events().is_empty()


def test_a_database_that_cannot_be_opened(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    file = shop.write("shop.csv", GOOD)
    monkeypatch.setenv("BRAID_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert "BRAID_DATABASE_URL" in refused(file, "--mapping", shop.mapping())
    monkeypatch.setenv("BRAID_DATABASE_URL", f"sqlite:///{shop.folder}")
    assert "BRAID_HOME" in refused(file, "--mapping", shop.mapping())


def test_ids_with_spaces_and_emoji_are_fine(shop: Shop) -> None:
    file = shop.write("shop.csv", "what,who,thing,when\nview,Ann Lee 🍵,tea  pot ☕,2024-05-01\n")
    shop.load(file, shop.mapping())
    assert shop.events().select("shopper", "item_id").rows() == [("u:Ann Lee 🍵", "tea  pot ☕")]


def test_one_single_user_and_a_catalogue_of_one_item(shop: Shop) -> None:
    mapping = PLAIN | {"items": {"source": "events", "id": "thing"}, "users": {"source": "events", "id": "who"}}
    report = shop.load(shop.write("shop.csv", GOOD), shop.mapping(mapping))
    assert [section.new for section in report.sections] == [1, 1, 1]
    assert shop.items()["item_id"].to_list() == ["cup"]


def test_a_user_with_a_million_events(shop: Shop) -> None:
    rows = 1_000_000
    times = pl.int_range(0, rows, eager=True) * 30 + 1_600_000_000
    file = shop.folder / "shop.parquet"
    pl.DataFrame({"what": "view", "who": "ann", "thing": (times % 977).cast(pl.String), "when": times}).write_parquet(
        file
    )
    report = shop.load(file, shop.mapping())
    assert report.sections[0].new == rows
    assert report.sections[0].rejected == {}


def test_windows_line_endings_and_semicolons(shop: Shop) -> None:
    file = shop.write("shop.csv", GOOD.replace(",", ";").replace("\n", "\r\n"))
    assert shop.load(file, shop.mapping()).sections[0].new == 1
