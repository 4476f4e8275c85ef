"""Folders in the format of each public set of data, small enough to work out by hand."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

DAY_S = 86_400
FIRST_DAY_S = 1_300_060_800 // DAY_S * DAY_S

Invoice = tuple[str, int | None, datetime, Sequence[str]]
"""Number, customer, time, stock codes."""


def write_lines(path: Path, lines: Sequence[str]) -> None:
    with gzip.open(path, "wt") as file:
        file.write("\n".join(lines) + "\n")


def session_folder(folder: Path, train: Sequence[str], test: Sequence[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "train_sessions.txt.gz", train)
    write_lines(folder / "test_prefix_target.txt.gz", test)
    return folder


def movielens_folder(folder: Path, users: Sequence[Sequence[int]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{user} {item}" for user, items in enumerate(users, 1) for item in items]
    write_lines(folder / "ml-1m.txt.gz", lines)
    return folder


def beauty_folder(folder: Path, users: Sequence[Sequence[tuple[int, int]]]) -> Path:
    """Users' (item, day) in order; item i carries the attributes i and 100."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        (user, item, FIRST_DAY_S + day * DAY_S, pos)
        for user, events in enumerate(users, 1)
        for pos, (item, day) in enumerate(events)
    ]
    schema = {"user_id": pl.Int32, "item_id": pl.Int32, "timestamp": pl.Int64, "pos": pl.Int16}
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(folder / "interactions.parquet")
    items = sorted({row[1] for row in rows})
    (folder / "item2attributes.json").write_text(json.dumps({str(item): [item, 100] for item in items}))
    return folder


def retail_folder(folder: Path, invoices: Sequence[Invoice], extra: Sequence[tuple[object, ...]] = ()) -> Path:
    """Invoices of one piece at 2.5 each; `extra` are whole rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[object, ...]] = [
        (number, code, f"Thing {code}", 1, time, 2.5, customer, "United Kingdom")
        for number, customer, time, codes in invoices
        for code in codes
    ]
    schema = {
        "InvoiceNo": pl.String,
        "StockCode": pl.String,
        "Description": pl.String,
        "Quantity": pl.Int64,
        "InvoiceDate": pl.Datetime("us"),
        "UnitPrice": pl.Float64,
        "CustomerID": pl.Int64,
        "Country": pl.String,
    }
    pl.DataFrame([*rows, *extra], schema=schema, orient="row").write_parquet(folder / "online_retail.parquet")
    return folder


def days_before_test(days: float) -> datetime:
    """A time before (or, negative, after) the test of Online Retail begins."""
    return datetime(2011, 11, 10) - timedelta(days=days)
