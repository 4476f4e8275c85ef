"""Online Retail (Chen 2015, UCI Machine Learning Repository, doi 10.24432/C5BW33, CC BY 4.0): the next basket.

File `online_retail.parquet`: the rows of the published spreadsheet with its column names, CustomerID an integer or
null. It is cleaned and written as the offline files of a shop, which then are read as any shop's. Settings are chosen
on the first baskets of the 28 days before 2011-11-10, figures come from each known customer's first basket since.
Repeats are allowed.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.quality.task import Task, read
from features.schema import EventType
from training.dataset import read_log
from training.evaluate import MomentChoice, Protocol, stage_by_time
from training.moments import DAY_MS

NAME = "online-retail"
FILE = "online_retail.parquet"
COLUMNS = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
SERVICE_CODES = ("POST", "DOT", "M", "D", "C2", "BANK CHARGES", "PADS", "CRUK", "AMAZONFEE", "S", "B")
"""Postage, fees and corrections among the stock codes."""
TEST_FROM_MS = int(datetime(2011, 11, 10, tzinfo=timezone.utc).timestamp() * 1000)
VALIDATION_DAYS = 28
PROTOCOL = Protocol(moments=MomentChoice.FIRST, min_item_moments=5, known_shoppers=True, sample=1 << 30)
ANONYMOUS_VISITS = False
"""Whether invoices without a customer may be learned from as one visit each. They are never moments."""


def read_online_retail(folder: Path, cache: Path) -> Task:
    """The task; `cache` gets the offline files.

    Raises:
        DataError: the file is missing or damaged.
    """
    path = folder / FILE
    write_offline(read(path, _clean), cache)
    log, moments = read_log(cache)
    known = np.array([shopper.startswith("u:") for shopper in log.shopper_ids])
    moments = moments.take(np.flatnonzero(known[moments.shoppers]))

    return Task(
        name=NAME,
        tuning=stage_by_time(log, moments, TEST_FROM_MS - VALIDATION_DAYS * DAY_MS, TEST_FROM_MS, PROTOCOL),
        final=stage_by_time(log, moments, TEST_FROM_MS, int(log.times_ms.max()) + 1, PROTOCOL),
        headline=("recall@10", "ndcg@10"),
        mean_of_shoppers=True,
        files=(path,),
    )


def write_offline(lines: pl.DataFrame, folder: Path) -> None:
    """Writes `events.parquet`, `items.parquet` and `users.parquet` as `python -m features build` does.

    Args:
        lines: as `_clean` gives them, one purchase a row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    events = lines.select(
        "shopper",
        event_id=pl.format("{}:{}", "InvoiceNo", "StockCode"),
        item_id=pl.col("StockCode"),
        event_type=pl.lit(int(EventType.PURCHASE), pl.Int32),
        event_time_ms=pl.col("InvoiceDate").dt.epoch("ms"),
        arrival_time_ms=pl.col("InvoiceDate").dt.epoch("ms"),
        position=pl.int_range(1, pl.len() + 1, dtype=pl.Int64),
        order_id=pl.col("InvoiceNo"),
        quantity=pl.col("Quantity").cast(pl.Float64),
        price=pl.col("UnitPrice"),
        session_id=pl.lit(None, pl.String),
        known_time_ms=pl.col("InvoiceDate").dt.epoch("ms"),
    )
    items = lines.group_by("StockCode").agg(
        title=pl.col("Description").drop_nulls().mode().sort().first(), price=pl.col("UnitPrice").median()
    )
    items = items.select(
        item_id=pl.col("StockCode"),
        title="title",
        category_path=pl.lit(None, pl.List(pl.String)),
        brand=pl.lit(None, pl.String),
        price="price",
        attributes=pl.lit(None, pl.List(pl.String)),
    )
    users = lines.group_by("shopper").agg(pl.col("Country").first()).sort("shopper")
    users = users.select(
        "shopper", age=pl.lit(None, pl.Int64), gender=pl.lit(None, pl.String), country=pl.col("Country")
    )
    events.sort("shopper", "event_time_ms", "position").write_parquet(folder / "events.parquet")
    items.sort("item_id").write_parquet(folder / "items.parquet")
    users.write_parquet(folder / "users.parquet")


def _clean(path: Path) -> pl.DataFrame:
    """Purchases alone, one row for an item of an invoice, with the column shopper, in order of time."""
    lines = pl.read_parquet(path, columns=COLUMNS).filter(
        ~pl.col("InvoiceNo").str.starts_with("C"),
        pl.col("Quantity") > 0,
        pl.col("UnitPrice") > 0,
        ~pl.col("StockCode").is_in(SERVICE_CODES),
    )
    if not ANONYMOUS_VISITS:
        lines = lines.drop_nulls("CustomerID")
    return (
        lines.with_columns(
            shopper=pl.when(pl.col("CustomerID").is_not_null())
            .then(pl.format("u:{}", "CustomerID"))
            .otherwise(pl.format("s:{}", "InvoiceNo"))
        )
        .group_by("shopper", "InvoiceNo", "StockCode", maintain_order=True)
        .agg(
            pl.col("Description").first(),
            pl.col("Quantity").sum(),
            pl.col("InvoiceDate").min(),
            pl.col("UnitPrice").median(),
            pl.col("Country").first(),
        )
        .sort("InvoiceDate", maintain_order=True)
    )
