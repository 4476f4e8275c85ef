"""A small shop's offline files: four categories, shoppers who keep to one and now and then look at another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from features.log.event_log import NewEvent
from features.schema import EventType

START_MS = 1_767_225_600_000  # 2026-01-01
DAY_MS = 86_400_000
MINUTE_MS = 60_000
ITEMS = 40
SHOPPERS = 60

EVENT_SCHEMA = {
    "shopper": pl.String,
    "event_id": pl.String,
    "item_id": pl.String,
    "event_type": pl.Int32,
    "event_time_ms": pl.Int64,
    "arrival_time_ms": pl.Int64,
    "position": pl.Int64,
    "order_id": pl.String,
    "quantity": pl.Float64,
    "price": pl.Float64,
    "session_id": pl.String,
    "known_time_ms": pl.Int64,
}

Row = tuple[str, str | None, int, int, str | None, str | None]
"""shopper, item id, event type, time in ms, order id, session id."""


def write_shop(folder: Path, rows: list[Row], items: pl.DataFrame | None = None) -> Path:
    """Writes `events.parquet`, `items.parquet` and `users.parquet` as `features build` does."""
    folder.mkdir(parents=True, exist_ok=True)
    records = [
        (shopper, f"e{at}", item, kind, time_ms, time_ms, at + 1, order, 1.0, 9.5, session, time_ms)
        for at, (shopper, item, kind, time_ms, order, session) in enumerate(rows)
    ]
    events = pl.DataFrame(records, schema=EVENT_SCHEMA, orient="row").sort("shopper", "event_time_ms", "position")
    events.write_parquet(folder / "events.parquet")
    (catalogue() if items is None else items).write_parquet(folder / "items.parquet")
    shoppers = events["shopper"].unique().sort().to_list() if rows else []
    pl.DataFrame(
        {
            "shopper": shoppers,
            "age": [20 + at % 50 for at in range(len(shoppers))],
            "gender": [("female", "male", None)[at % 3] for at in range(len(shoppers))],
            "country": ["GB"] * len(shoppers),
        },
        schema={"shopper": pl.String, "age": pl.Int64, "gender": pl.String, "country": pl.String},
    ).write_parquet(folder / "users.parquet")
    return folder


def as_written(rows: list[Row]) -> list[NewEvent]:
    """The same events as users write them into the log."""
    return [
        NewEvent(
            event_id=f"e{at}",
            event_type=int(kind),
            event_time_ms=time_ms,
            user_id=shopper[2:],
            session_id=session,
            item_id=item,
            order_id=order,
        )
        for at, (shopper, item, kind, time_ms, order, session) in enumerate(rows)
    ]


def catalogue(count: int = ITEMS) -> pl.DataFrame:
    """Items of four categories in turn."""
    return pl.DataFrame(
        {
            "item_id": [f"i{number:03d}" for number in range(count)],
            "title": [f"Thing {number % 4}" for number in range(count)],
            "category_path": [["Home", f"Room {number % 4}"] for number in range(count)],
            "brand": [f"Brand {number % 3}" for number in range(count)],
            "price": [1.0 + number for number in range(count)],
            "attributes": [["colour=red"] for _ in range(count)],
        }
    )


def visits(seed: int = 0, shoppers: int = SHOPPERS, days: int = 60) -> list[Row]:
    """Visits of one category each: views, then mostly a cart and a purchase of a favourite item."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for shopper in range(shoppers):
        for visit in range(int(rng.integers(4, 12))):
            taste = shopper % 4 if rng.random() < 0.7 else int(rng.integers(4))
            time_ms = START_MS + int(rng.integers(days * 24)) * 60 * MINUTE_MS
            session = f"s{shopper}-{visit}"
            seen = rng.choice(ITEMS // 4, 4, replace=False) * 4 + taste
            for at, item in enumerate(seen):
                rows.append((f"u:{shopper}", f"i{item:03d}", EventType.VIEW, time_ms + at * MINUTE_MS, None, session))
            if rng.random() < 0.8:
                bought = f"i{shopper % 10 * 4 + taste:03d}"
                for kind, minute in ((EventType.CART, 5), (EventType.PURCHASE, 6)):
                    order = f"o{shopper}-{visit}" if kind == EventType.PURCHASE else None
                    rows.append((f"u:{shopper}", bought, kind, time_ms + minute * MINUTE_MS, order, session))
    return rows
