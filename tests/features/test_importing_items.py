"""What an import takes over of items and users, what it leaves out, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features.database.engine import open_database
from features.importing.describing import ITEM_FIELDS
from features.importing.mapping import ItemsMapping
from features.importing.storing import store_items
from features.settings import Settings
from features.shop.catalogue import Catalogue, CatalogueItem
from tests.features.import_shop import PLAIN, Shop, rejected

GOOD = "view,ann,cup,2024-05-01T10:00:00Z"


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(Settings(home=tmp_path / "home"), tmp_path)


def test_items_beyond_a_limit_are_cut_and_counted(shop: Shop) -> None:
    mapping = deepcopy(PLAIN) | {
        "items": {
            "id": "id",
            "title": "title",
            "category": "path",
            "category_separator": "/",
            "price": "price",
            "stock": "stock?",
            "attributes": ["a_*"],
        }
    }
    events = shop.write("events.csv", f"what,who,thing,when\n{GOOD}\n")
    wide = ",".join(f"a_{number}" for number in range(40))
    items = shop.write(
        "items.csv",
        f"id,title,path,price,{wide}\n"
        f"cup,{'t' * 1_500},{'/'.join('abcdefghij')},-5,{','.join('x' * 40)}\n"
        f",none,a,1,{',' * 39}\n"
        f"pot,old,a,1,{',' * 39}\n"
        f"pot,new, a / /b ,cheap,{',' * 39}\n",
    )
    section = shop.load(events, shop.mapping(mapping), items=[items]).sections[1]
    assert section.rejected == {"missing_id": 1, "overwritten": 1}
    cup, pot = shop.items().sort("item_id").rows(named=True)
    assert (len(cup["title"]), cup["category_path"], cup["price"]) == (1_000, list("abcdefgh"), None)
    assert len(cup["attributes"]) == 32
    assert (pot["title"], pot["category_path"], pot["price"]) == ("new", ["a", "b"], None)
    assert sum(section.adjusted.values()) == 5


@pytest.mark.parametrize("shape", ["wide", "long", "events"])
def test_launch_times_and_age_limits_are_read_or_counted(shop: Shop, shape: str) -> None:
    items: dict[str, Any] = {
        "id": "thing",
        "launch_time": {"column": "since", "formats": ["%d.%m.%Y"]},
        "age_restricted": "adults",
    }
    rows = {"cup": ("01.05.2024", "yes"), "pot": ("May 24", "ja"), "pan": ("1714557600000", "no"), "jar": ("", "")}
    table = "thing,since,adults\n" + "".join(f"{name},{','.join(row)}\n" for name, row in rows.items())
    if shape == "long":
        items |= {"long": {"property": "name", "value": "value"}}
        table = "thing,name,value\n" + "".join(f"{n},since,{a}\n{n},adults,{b}\n" for n, (a, b) in rows.items())
    events = "what,who,thing,when\n" + f"{GOOD}\n"
    if shape == "events":
        items["source"] = "events"
        lines = [f"{GOOD.replace('cup', name)},{','.join(row)}\n" for name, row in rows.items()]
        events = "what,who,thing,when,since,adults\n" + "".join(lines)
    given = {} if shape == "events" else {"items": [shop.write("items.csv", table)]}
    mapping = shop.mapping(PLAIN | {"items": items})
    section = shop.load(shop.write("events.csv", events), mapping, **given).sections[1]
    assert sorted(name.split()[0] for name in section.adjusted) == ["age_restricted", "launch_time"]
    stored = {row["item_id"]: (row["launch_time_ms"], row["age_restricted"]) for row in shop.items().to_dicts()}
    assert stored == {
        "cup": (1_714_521_600_000, True),
        "pot": (None, True),
        "pan": (1_714_557_600_000, False),
        "jar": (None, False),
    }


@pytest.mark.parametrize("what", ["items", "users"])
def test_lines_of_items_and_users_behind_a_stray_quotation_mark_are_given_back(shop: Shop, what: str) -> None:
    mapping = deepcopy(PLAIN) | {what: {"id": "id", "attributes": ["note"]}}
    events = shop.write("events.csv", f"what,who,thing,when\n{GOOD}\n")
    stray = 'a3,"stray'
    lines = ["id,note", "a1,one", "a2", stray, "a4,four", "a5,five,more", "a6,six", ",none"]
    file = shop.write(f"{what}.csv", "\n".join(lines) + "\n")
    given: dict[str, Any] = {"items": [file]} if what == "items" else {"users": file}
    section = shop.load(events, shop.mapping(mapping), **given).sections[1]
    assert section.rejected == {"unreadable_line": 3, "missing_id": 1}
    assert (section.rows, section.new) == (7, 3)
    stored = shop.items() if what == "items" else shop.users()
    assert sorted(stored[f"{what[:-1]}_id"]) == ["a1", "a4", "a6"]
    kept = rejected(section).filter(pl.col("reason") == "unreadable_line").sort("line")
    assert kept["line"].to_list() == [3, 4, 6]
    assert kept["line_text"].str.strip_chars().to_list() == ["a2", stray, "a5,five,more"]


def test_each_file_of_items_keeps_its_own_unreadable_lines(shop: Shop) -> None:
    mapping = deepcopy(PLAIN) | {"items": {"id": "id", "title": "title?"}}
    events = shop.write("events.csv", f"what,who,thing,when\n{GOOD}\nview,ann\n")
    table = shop.write("items.csv", "id,title\ncup,Cup,more\npot,Pot\n")
    lines = shop.write("items.jsonl", '{"id": "pan", "title": "Pan"}\nno json\n{"id": "jar"}\n')
    report = shop.load(events, shop.mapping(mapping), items=[table, lines])
    assert [section.rejected for section in report.sections] == [{"unreadable_line": 1}, {"unreadable_line": 2}]
    assert sorted(shop.items()["item_id"]) == ["jar", "pan", "pot"]
    kept = rejected(report.sections[1]).sort("file")
    assert kept["file"].to_list() == [0, 1] and kept["line"].to_list() == [2, 2]
    assert kept["line_text"].str.strip_chars().to_list() == ["cup,Cup,more", "no json"]


def test_items_out_of_events_know_the_lines_that_were_given_back(shop: Shop) -> None:
    mapping = deepcopy(PLAIN) | {"items": {"source": "events", "id": "thing", "title": "name"}}
    rows = [f"{GOOD},Cup", 'view,ann,"jug,2024-05-01T10:00:00Z,Jug', "view,ann,pot,2024-05-01T10:01:00Z,Pot"]
    shop.load_rows(rows, mapping, "what,who,thing,when,name")
    assert dict(shop.items().select("item_id", "title").rows()) == {"cup": "Cup", "pot": "Pot"}


def test_fields_that_the_mapping_does_not_name_stay(shop: Shop) -> None:
    events = shop.write("events.csv", f"what,who,thing,when\n{GOOD}\n")
    items = shop.write("items.csv", "id,title,price\ncup,Cup,2\n")
    priced = deepcopy(PLAIN) | {"items": {"id": "id", "price": "price"}}
    titled = deepcopy(PLAIN) | {"items": {"id": "id", "title": "title"}}
    shop.load(events, shop.mapping(titled), items=[items])
    section = shop.load(events, shop.mapping(priced), items=[items]).sections[1]
    assert (section.new, section.changed) == (0, 1)
    assert shop.items().select("title", "price").rows() == [("Cup", 2.0)]


def test_what_the_gateway_changes_while_items_are_imported_stays(shop: Shop) -> None:
    engine = open_database(shop.settings.log_url)
    catalogue = Catalogue(engine)
    catalogue.upsert([CatalogueItem(item_id="cup", title="Cup", stock=5)])

    class Busy(Catalogue):
        def of(self, item_ids: Sequence[str]) -> dict[str, CatalogueItem]:
            found = super().of(item_ids)
            catalogue.upsert([CatalogueItem(item_id="cup", stock=4)], ["stock"])
            return found

    fields = dict.fromkeys(ITEM_FIELDS)
    rows = [fields | {"id": name, "price": "2", "attributes": None} for name in ("cup", "pot")]
    stored = store_items(Busy(engine), rows, ItemsMapping.model_validate({"id": "id", "price": "price"}))
    assert (stored.new, stored.changed) == (1, 1)
    figures = shop.items().sort("item_id").select("item_id", "title", "price", "stock")
    assert figures.rows() == [("cup", "Cup", 2.0, 4), ("pot", None, 2.0, None)]
    engine.dispose()


@pytest.mark.parametrize(
    ("files", "note"),
    [
        (["none.csv"], "none.csv of the mapping's items.files is not beside events.csv: no items were read"),
        (["items.csv", "none.csv"], "none.csv of the mapping's items.files is not beside events.csv: nothing of it"),
        ([], "the mapping's section items names no files: no items were read"),
        (["items.csv"], ""),
    ],
)
def test_files_of_items_that_are_not_there_are_told(shop: Shop, files: list[str], note: str) -> None:
    events = shop.write("events.csv", f"what,who,thing,when\n{GOOD}\n")
    shop.write("items.csv", "id\ncup\n")
    report = shop.load(events, shop.mapping(PLAIN | {"items": {"id": "id", "files": files}}))
    assert shop.items()["item_id"].to_list() == ["cup"] * ("items.csv" in files)
    assert len(report.notes) == bool(note) and "".join(report.notes).startswith(note)
    assert not note or "--items FILE" in report.notes[0]


def test_events_on_items_that_the_catalogue_does_not_hold_are_told(shop: Shop) -> None:
    rows = [f"view,ann,{item},2024-05-01T10:00:0{n}Z" for n, item in enumerate(("cup", "cup", "pot", "pan"))]
    events = shop.write("events.csv", "\n".join(["what,who,thing,when", *rows]) + "\n")
    mapping = shop.mapping(PLAIN | {"items": {"id": "id"}})
    (note,) = shop.load(events, mapping, items=[shop.write("cup.csv", "id\ncup\n")]).notes
    assert note.startswith("50.0% of the events are on items that the catalogue does not hold, for example 'pot'")
    assert shop.load(events, mapping, items=[shop.write("all.csv", "id\ncup\npot\npan\n")]).notes == []
    assert shop.load(events, mapping, items=[shop.write("cup.csv", "id\ncup\n")]).notes == []  # what changed since
