"""Prices and quantities are read as shops write them, with a decimal point or a decimal comma."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import duckdb
import pytest

from features.importing.errors import ImportFailed
from features.importing.numbers import DecimalMark, number_of_text
from features.settings import Settings
from tests.features.import_shop import PLAIN, Shop

HEADER = "what;who;thing;when;pieces;price"


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(Settings(home=tmp_path / "home"), tmp_path)


def with_commas(**sections: object) -> dict[str, Any]:
    return {"events": deepcopy(PLAIN["events"]) | {"decimal": ","}, **sections}


@pytest.mark.parametrize(
    ("decimal", "written", "number"),
    [
        (".", "12.50", 12.5),
        (".", "-3", -3),
        (".", "1e3", 1_000),
        (".", ".5", 0.5),
        (".", "€ 1,234.50", 1_234.5),
        (".", "from $9.99", 9.99),
        (".", "Rs. 1,234", 1_234),
        (".", "CHF 1'234.50", 1_234.5),
        (".", "12.50\u00a0€", 12.5),
        (".", "12.50 USD", 12.5),
        (".", "12,50", None),
        (".", "12,34,5", None),
        (".", "1.2.3", None),
        (".", "cheap", None),
        (".", " ", None),
        (",", "12,50 €", 12.5),
        (",", "1.234,50", 1_234.5),
        (",", "1.234", 1_234),
        (",", "1\u202f234,50 EUR", 1_234.5),
        (",", "12.50", 12.5),
        (",", "1,2,3", None),
    ],
)
def test_a_number_is_read_whatever_stands_around_it(decimal: DecimalMark, written: str, number: float | None) -> None:
    ((read,),) = duckdb.execute(f"SELECT {number_of_text('$1', decimal)}", [written]).fetchall()
    assert read == number


def test_events_with_decimal_commas_and_currencies(shop: Shop) -> None:
    rows = ["view;ann;cup;2024-05-01;;", "purchase;ann;cup;2024-05-02;2;1.012,50 €", "purchase;ann;pot;2024-05-03;1;-"]
    section = shop.load_rows(rows, with_commas(), HEADER)
    assert section.rejected == {"unreadable_number": 1}
    assert shop.events().select("quantity", "price").rows() == [(None, None), (2.0, 1_012.5)]


def test_items_with_decimal_commas_and_currencies(shop: Shop) -> None:
    items = {"id": "id", "price": "price", "stock": "stock", "decimal": ","}
    events = shop.write("events.csv", f"{HEADER}\nview;ann;cup;2024-05-01;;\n")
    file = shop.write("items.csv", "id;price;stock\ncup;12,50 €;1.200\npot;€ 3;0\npan;12,5,0;2\n")
    section = shop.load(events, shop.mapping(with_commas(items=items)), items=[file]).sections[1]
    assert sum(section.adjusted.values()) == 1
    stored = shop.items().sort("item_id").select("item_id", "price", "stock").rows()
    assert stored == [("cup", 12.5, 1_200), ("pan", None, 2), ("pot", 3.0, 0)]


def test_items_out_of_events_take_the_decimal_mark_of_the_events(shop: Shop) -> None:
    mapping = with_commas(items={"source": "events", "id": "thing", "price": "price"})
    shop.load_rows([f"purchase;ann;cup;2024-05-0{day};1;{day},50 €" for day in (1, 2, 3)], mapping, HEADER)
    assert shop.items().select("item_id", "price").rows() == [("cup", 2.5)]


def test_properties_of_items_with_decimal_commas(shop: Shop) -> None:
    long = {"property": "name", "value": "value"}
    mapping = with_commas(items={"id": "id", "price": "price", "long": long, "decimal": ","})
    events = shop.write("events.csv", f"{HEADER}\nview;ann;cup;2024-05-01;;\n")
    items = shop.write("items.csv", "id;name;value\ncup;price;1.012,50 €\n")
    shop.load(events, shop.mapping(mapping), items=[items])
    assert shop.items().select("item_id", "price").rows() == [("cup", 1_012.5)]


def test_a_file_of_decimal_commas_that_nobody_told_of_is_refused_with_the_remedy(shop: Shop) -> None:
    with pytest.raises(ImportFailed, match=r"'12,50'.* events\.decimal: \",\""):
        shop.load_rows(["purchase;ann;cup;2024-05-01;1;12,50"], header=HEADER)
