"""Finds a shopper worth a story, and the past that the story tells: read from the offline features."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from features.schema import SEQUENCE_TYPES, EventType

BOUGHT, LOOKED = 6, 6
"""Purchases and other events that the story shows, the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A shopper's past. Rows are (item_id, event_type, event_time_ms, count), newest first, one row an item.

    popular: item ids, most often acted on first; types: event types that the log holds.
    """

    user_id: str
    events: int
    purchases: int
    orders: int
    first_ms: int
    last_ms: int
    bought: list[tuple[str, int, int, int]]
    looked: list[tuple[str, int, int, int]]
    touched: set[str]
    popular: list[str]
    types: set[int]


def choose(offline: Path, told: Collection[str]) -> Past | None:
    """The shopper with the clearest taste among those with enough history and recent acts; None for an empty log.

    Args:
        offline: folder of `events.parquet` and `items.parquet`.
        told: user ids whose story was told before; passed over while there are others.
    """
    events = pl.scan_parquet(offline / "events.parquet").filter(
        pl.col("event_type").is_in([int(kind) for kind in SEQUENCE_TYPES]), pl.col("item_id").is_not_null()
    )
    ranked = _ranked(events, offline / "items.parquet")
    if not ranked:
        return None
    user_id = next((user for user in ranked if user not in told), ranked[0])
    return _past(events, user_id)


def users(offline: Path, count: int) -> list[str]:
    """`count` user ids, or as many as there are, the same on every call."""
    shoppers = (
        pl.scan_parquet(offline / "events.parquet")
        .filter(pl.col("shopper").str.starts_with("u:"))
        .select(pl.col("shopper").unique().sort().str.slice(2))
        .collect()["shopper"]
    )
    return shoppers.sample(min(count, shoppers.len()), seed=11, shuffle=True).to_list()


def _ranked(events: pl.LazyFrame, items: Path) -> list[str]:
    """User ids, best story first."""
    purchase = pl.col("event_type") == int(EventType.PURCHASE)
    topic = pl.coalesce(pl.col("category_path").list.head(2).list.join(" > "), "brand", "item_id")
    topics = pl.scan_parquet(items).select("item_id", topic=topic)
    known = events.filter(pl.col("shopper").str.starts_with("u:")).join(topics, on="item_id")
    weight = pl.when(purchase).then(3.0).otherwise(1.0).sum()
    clarity = (
        known.group_by("shopper", "topic")
        .agg(weight=weight)
        .group_by("shopper")
        .agg(clarity=(pl.col("weight") / pl.col("weight").sum()).pow(2).sum())
    )
    people = (
        known.group_by("shopper")
        .agg(
            acts=pl.len(),
            purchases=pl.col("item_id").filter(purchase).n_unique(),
            last_ms=pl.col("event_time_ms").max(),
        )
        .with_columns(
            # Enough to tell of, but no wholesaler; still here, but with a past.
            enough=pl.min_horizontal(pl.col("purchases") / 8, pl.col("acts") / 25, 1.0),
            usual=pl.col("acts") <= pl.col("acts").quantile(0.97),
            recent=1 - (pl.col("last_ms").max() - pl.col("last_ms")) / 86_400_000 / 14,
        )
        .join(clarity, on="shopper")
        .with_columns(
            story=pl.col("enough")
            * (0.3 + pl.col("clarity"))
            * pl.col("recent").clip(0.05)
            * (0.2 + 0.8 * pl.col("usual"))
        )
        .sort("story", "shopper", descending=[True, False])
        .head(50)
        .collect()
    )
    return people["shopper"].str.slice(2).to_list()


def _past(events: pl.LazyFrame, user_id: str) -> Past:
    own = events.filter(pl.col("shopper") == f"u:{user_id}").sort("event_time_ms").collect()
    bought = own.filter(pl.col("event_type") == int(EventType.PURCHASE))
    orders = pl.coalesce(pl.col("order_id"), pl.col("event_time_ms").cast(pl.String))
    counts = events.group_by("item_id").len().sort("len", "item_id", descending=[True, False])
    return Past(
        user_id=user_id,
        events=own.height,
        purchases=bought.height,
        orders=bought.select(orders.n_unique()).item(),
        first_ms=int(own["event_time_ms"][0]),
        last_ms=int(own["event_time_ms"][-1]),
        bought=_newest(bought, BOUGHT),
        looked=_newest(own.filter(~pl.col("item_id").is_in(bought["item_id"].implode())), LOOKED),
        touched=set(own["item_id"]),
        popular=counts.head(400).collect()["item_id"].to_list(),
        types=set(events.select(pl.col("event_type").unique()).collect()["event_type"]),
    )


def _newest(rows: pl.DataFrame, count: int) -> list[tuple[str, int, int, int]]:
    newest = (
        rows.group_by("item_id", maintain_order=True)
        .agg(pl.col("event_type", "event_time_ms").last(), times=pl.len())
        .sort("event_time_ms", "item_id", descending=True)
        .head(count)
    )
    return [(str(item), int(kind), int(time_ms), int(times)) for item, kind, time_ms, times in newest.iter_rows()]
