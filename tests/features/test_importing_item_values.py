"""What an item's stock, launch and age restriction are read from: nothing is on sale by a misreading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features.settings import Settings
from tests.features.import_shop import PLAIN, Shop, write_excel

ROW = "view,anna,cup,2024-01-01 10:00"
LAUNCH_MS = 1_893_456_000_000  # 2030-01-01
LEFT_OUT = "launch_time unreadable, see items.launch_time.formats, or beyond year 9999: left out"
LONG = {"property": "name", "value": "value"}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    (tmp_path / "files").mkdir()
    return Shop(Settings(home=tmp_path / "home"), tmp_path / "files")


def load(shop: Shop, items: Path, **section: Any) -> tuple[pl.DataFrame, dict[str, int]]:
    """The catalogue by id, and what was adjusted."""
    mapping = {**PLAIN, "items": {"id": "id", **section}}
    events = shop.write("rows.csv", f"what,who,thing,when\n{ROW}\n")
    report = shop.load(events, shop.mapping(mapping), items=[items])
    return shop.items().sort("item_id"), report.sections[1].adjusted


def test_an_age_restriction_is_understood_in_every_format(shop: Shop) -> None:
    parquet, excel = shop.folder / "items.parquet", shop.folder / "items.xlsx"
    pl.DataFrame({"id": ["a", "b", "c", "d"], "adult": [1.0, 0.0, None, float("nan")]}).write_parquet(parquet)
    write_excel(excel, [["id", "adult"], ["a", 1], ["b", 0], ["c", None], ["d", 0]])
    text = shop.write("items.csv", "id,adult\na,18\nb,No\nc,\nd,0.0\n")
    for file in (parquet, excel, text):
        items, adjusted = load(shop, file, age_restricted="adult")
        assert items["age_restricted"].to_list() == [True, False, False, False] and not adjusted


def test_what_may_mean_an_age_restriction_is_one_and_is_counted(shop: Shop) -> None:
    text = shop.write("items.csv", "id,adult\na,ja\nb,18+\nc,false\n")
    items, adjusted = load(shop, text, age_restricted="adult")
    assert items["age_restricted"].to_list() == [True, True, False]
    assert adjusted == {"age_restricted neither yes nor no: taken as restricted": 2}


def test_stock_below_0_is_none(shop: Shop) -> None:
    text = shop.write("items.csv", 'id,pieces\na,-3\nb,-1.0\nc,0.5\nd,"1,200"\ne,many\n')
    items, adjusted = load(shop, text, stock="pieces")
    assert items["stock"].to_list() == [0, 0, 1, 1_200, None]
    assert adjusted["stock below 0: taken as 0"] == 2 and sum(adjusted.values()) == 3


def test_a_launch_time_that_is_none_is_counted(shop: Shop) -> None:
    text = shop.write("items.csv", "id,launch\na,2030-01-01\nb,1st of May\nc,\n")
    items, adjusted = load(shop, text, launch_time="launch")
    assert items["launch_time_ms"].to_list() == [LAUNCH_MS, None, None]
    assert adjusted == {LEFT_OUT: 1}


def test_a_launch_time_that_no_timestamp_holds_is_left_out(shop: Shop) -> None:
    text = shop.write("items.csv", f"id,launch\na,{LAUNCH_MS * 1_000_000}\nb,253402300799999\nc,{LAUNCH_MS}\n")
    items, adjusted = load(shop, text, launch_time="launch")
    assert items["launch_time_ms"].to_list() == [None, 253_402_300_800, LAUNCH_MS]  # by their size: in ns, µs and ms
    assert adjusted == {LEFT_OUT: 1}


@pytest.mark.parametrize("launch", ["2030-01-01", str(LAUNCH_MS), str(LAUNCH_MS // 1000)])
def test_a_launch_time_among_properties_or_events_is_read_as_one_in_a_column(shop: Shop, launch: str) -> None:
    properties = shop.write("items.csv", f"id,name,value\na,launch,{launch}\na,price,5\nb,price,6\n")
    items, adjusted = load(shop, properties, launch_time="launch", price="price", long=LONG)
    assert items.select("item_id", "launch_time_ms", "price").rows() == [("a", LAUNCH_MS, 5.0), ("b", None, 6.0)]
    assert not adjusted
    events = shop.write("sold.csv", f"what,who,thing,when,launch\n{ROW},{launch}\n")
    mapping = {**PLAIN, "items": {"source": "events", "id": "thing", "launch_time": "launch"}}
    shop.load(events, shop.mapping(mapping))
    assert shop.items().filter(item_id="cup")["launch_time_ms"].item() == LAUNCH_MS


def test_a_property_without_a_time_holds_only_where_none_has_one(shop: Shop) -> None:
    rows = ["a,price,5,2024-01-01", "a,price,9,soon", "b,price,3,", "b,price,4,2024-01-01", "c,price,6,"]
    properties = shop.write("items.csv", "\n".join(["id,name,value,when", *rows]) + "\n")
    items, _ = load(shop, properties, price="price", long={**LONG, "time": "when"})
    assert items["price"].to_list() == [5.0, 4.0, 6.0]
