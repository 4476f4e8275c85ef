"""Text files are read as programs write them: in Windows' alphabet, with broken characters, with mixed line ends."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from features.settings import Settings
from tests.features.import_shop import Shop, rejected


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(Settings(home=tmp_path / "home"), tmp_path)


def test_a_table_of_windows_with_its_own_signs_is_read(shop: Shop) -> None:
    head = "what,who,thing,when\n"
    file = shop.write("shop.csv", head + "view,jörg,Ring – 5 €,2024-05-01\nview,ann,„Topf“,2024-05-02\n", "cp1252")
    assert shop.load(file, shop.mapping()).sections[0].rejected == {}
    assert shop.events().select("shopper", "item_id").rows() == [("u:jörg", "Ring – 5 €"), ("u:ann", "„Topf“")]


def test_a_character_that_was_cut_in_two_costs_its_line_alone(shop: Shop) -> None:
    file = shop.folder / "shop.csv"
    cut = "view,bob,☕,2024-05-02\n".encode().replace("☕".encode(), "☕".encode()[:2])
    file.write_bytes("what,who,thing,when\nview,jörg,Töpfe,2024-05-01\n".encode() + cut)
    section = shop.load(file, shop.mapping()).sections[0]
    assert (section.new, section.rejected) == (1, {"unreadable_line": 1})
    assert shop.events().select("shopper", "item_id").rows() == [("u:jörg", "Töpfe")]


@pytest.mark.parametrize("first", ["\n", "\r\n", "\r\r\n"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_of_several_kinds_of_line_ends_is_read(shop: Shop, first: str, packed: bool) -> None:
    rows = [f"view,ann,cup {n},2024-05-0{n + 1}" for n in range(4)]
    text = "what,who,thing,when" + first + rows[0] + first + "\r\n".join(rows[1:3]) + "\n" + rows[3]
    file = shop.write("shop.csv", text)
    if packed:
        file = shop.folder / "shop.csv.gz"
        file.write_bytes(gzip.compress(text.encode()))
    assert shop.load(file, shop.mapping()).sections[0].rejected == {}
    assert shop.events()["item_id"].to_list() == [f"cup {n}" for n in range(4)]


def test_json_lines_of_several_kinds_of_line_ends_are_read(shop: Shop) -> None:
    lines = [json.dumps({"what": "view", "who": "ann", "thing": f"i{n}", "when": 1_700_000_000 + n}) for n in range(3)]
    section = shop.load(shop.write("shop.jsonl", "\r\n".join(lines[:2]) + "\n" + lines[2]), shop.mapping()).sections[0]
    assert (section.new, section.rejected) == (3, {})


def test_a_return_within_a_line_does_not_end_it(shop: Shop) -> None:
    shop.load(shop.write("shop.csv", "what,who,thing,when\nview,ann,cup\rblue,2024-05-01\n"), shop.mapping())
    assert shop.events()["item_id"].to_list() == ["cup blue"]


@pytest.mark.parametrize("told", ["sep=;", '"sep=;"', "SEP=;"])
def test_a_first_line_that_tells_excel_the_separator_is_no_header(shop: Shop, told: str) -> None:
    rows = ["what;who;thing;when", "view;ann;a, b, c and d;2024-05-01", "view;ann", "view;ann;cup;2024-05-02"]
    section = shop.load(shop.write("shop.csv", "\r\n".join([told, *rows, ""])), shop.mapping()).sections[0]
    assert (section.rows, section.new, section.rejected) == (3, 2, {"unreadable_line": 1})
    assert shop.events()["item_id"].to_list() == ["a, b, c and d", "cup"]


def test_a_bad_line_between_windows_line_ends_is_one_line(shop: Shop) -> None:
    good = ["what,who,thing,when", "view,jörg,Töpfe,2024-05-03", "view,ann,cup,2024-05-01"]
    bad = [b"view,ann", b"view,bob,\xe2\x98,2024-05-02"]
    file = shop.folder / "shop.csv"
    file.write_bytes(b"\r\n".join([*map(str.encode, good), *bad, b""]))
    section = shop.load(file, shop.mapping()).sections[0]
    assert (section.rows, section.new, section.rejected) == (4, 2, {"unreadable_line": 2})
    kept = rejected(section).sort("line")
    assert kept["line"].to_list() == [4, 5]
    assert [text.partition("?")[0] for text in kept["line_text"]] == ["view,ann", "view,bob,"]
