"""Online rows from events: what a shopper did lately, what they bought, who they are.

The batch build passes the whole log's events and the stream worker those of a few shoppers; both get the same rows.
A row has the shopper's key, the features of its view and `event_timestamp`, the time of its newest event.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from features.schema import (
    ITEM_STATISTICS_VIEW,
    OWN_ITEMS,
    PROFILE_VIEW,
    PURCHASES_VIEW,
    RECENT_EVENTS,
    RECENT_VIEW,
    SEQUENCE_TYPES,
    EventType,
)

_UTC = pl.Datetime("us", "UTC")

RECENT_ROWS: Final[dict[str, pl.DataType]] = {
    "shopper": pl.String(),
    "event_ids": pl.List(pl.String()),
    "item_ids": pl.List(pl.String()),
    "event_types": pl.List(pl.Int32()),
    "event_times_ms": pl.List(pl.Int64()),
    "log_position": pl.Int64(),
    "event_timestamp": _UTC,
}
PURCHASE_ROWS: Final[dict[str, pl.DataType]] = {
    "shopper": pl.String(),
    "item_ids": pl.List(pl.String()),
    "counts": pl.List(pl.Int32()),
    "first_times_ms": pl.List(pl.Int64()),
    "last_times_ms": pl.List(pl.Int64()),
    "basket_count": pl.Int64(),
    "event_timestamp": _UTC,
}
PROFILE_ROWS: Final[dict[str, pl.DataType]] = {
    "shopper": pl.String(),
    "age": pl.Int64(),
    "gender": pl.String(),
    "country": pl.String(),
    "event_timestamp": _UTC,
}
INTEREST_ROWS: Final[dict[str, pl.DataType]] = {
    "shopper": pl.String(),
    "vector": pl.List(pl.Float32()),
    "encoded_through_ms": pl.Int64(),
    "encoded_position": pl.Int64(),
    "event_timestamp": _UTC,
}
STATISTICS_ROWS: Final[dict[str, pl.DataType]] = {
    "item_id": pl.String(),
    "views": pl.Int64(),
    "carts": pl.Int64(),
    "purchases": pl.Int64(),
    "popularity": pl.Float64(),
    "event_timestamp": _UTC,
}
ROWS: Final[dict[str, dict[str, pl.DataType]]] = {
    RECENT_VIEW: RECENT_ROWS,
    PURCHASES_VIEW: PURCHASE_ROWS,
    PROFILE_VIEW: PROFILE_ROWS,
    ITEM_STATISTICS_VIEW: STATISTICS_ROWS,
}
"""Rows of the views that outlive any release, by view."""


def newest_events(events: pl.DataFrame, limit: int = RECENT_EVENTS) -> pl.DataFrame:
    """The newest `limit` events of `SEQUENCE_TYPES` of each shopper, as `EventLog.recent_of` gives them.

    Args:
        events: columns shopper, event_id, item_id, event_type, event_time_ms, position; sorted by shopper,
            event_time_ms, position.
    """
    return (
        events.filter(pl.col("event_type").is_in([int(kind) for kind in SEQUENCE_TYPES]))
        .group_by("shopper", maintain_order=True)
        .tail(limit)
    )


def recent_rows(events: pl.DataFrame) -> pl.DataFrame:
    """Rows of `RECENT_ROWS` from `newest_events` or `EventLog.recent_of`.

    `log_position` is the newest position among the row's events.
    """
    rows = (
        events.filter(pl.col("item_id").is_not_null())
        .group_by("shopper", maintain_order=True)
        .agg(
            pl.col("event_id").alias("event_ids"),
            pl.col("item_id").alias("item_ids"),
            pl.col("event_type").alias("event_types"),
            pl.col("event_time_ms").alias("event_times_ms"),
            pl.col("position").max().alias("log_position"),
            _timestamp(pl.col("event_time_ms").max()),
        )
    )
    return _shaped(rows, RECENT_ROWS)


def purchases(events: pl.DataFrame) -> pl.DataFrame:
    """What each shopper bought, as `EventLog.purchases_of` gives it.

    Args:
        events: columns shopper, item_id, event_type, event_time_ms, order_id.

    Returns:
        shopper, item_id, count, first_time_ms, last_time_ms, basket_count; at most `OWN_ITEMS` rows a shopper.
    """
    bought = events.filter(
        (pl.col("event_type") == int(EventType.PURCHASE)) & pl.col("item_id").is_not_null()
    ).with_columns(basket())
    counted = bought.group_by("shopper", "item_id").agg(
        pl.col("basket").n_unique().cast(pl.Int64).alias("count"),
        pl.col("event_time_ms").min().alias("first_time_ms"),
        pl.col("event_time_ms").max().alias("last_time_ms"),
    )
    baskets = bought.group_by("shopper").agg(pl.col("basket").n_unique().cast(pl.Int64).alias("basket_count"))
    return (
        counted.join(baskets, on="shopper")
        .sort(["shopper", "count", "last_time_ms", "item_id"], descending=[False, True, True, False])
        .group_by("shopper", maintain_order=True)
        .head(OWN_ITEMS)
    )


def basket() -> pl.Expr:
    """What makes purchases one basket: the order, or the moment where there is no order id."""
    return pl.coalesce("order_id", pl.col("event_time_ms").cast(pl.String)).alias("basket")


def purchase_rows(bought: pl.DataFrame) -> pl.DataFrame:
    """Rows of `PURCHASE_ROWS` from `purchases` or `EventLog.purchases_of`."""
    rows = bought.group_by("shopper", maintain_order=True).agg(
        pl.col("item_id").alias("item_ids"),
        pl.col("count").alias("counts"),
        pl.col("first_time_ms").alias("first_times_ms"),
        pl.col("last_time_ms").alias("last_times_ms"),
        pl.col("basket_count").first(),
        _timestamp(pl.col("last_time_ms").max()),
    )
    return _shaped(rows, PURCHASE_ROWS)


def profile_rows(users: pl.DataFrame) -> pl.DataFrame:
    """Rows of `PROFILE_ROWS` from `Users.frame`."""
    return _shaped(
        users.with_columns(pl.format("u:{}", "user_id").alias("shopper"), _timestamp(pl.col("updated_time_ms"))),
        PROFILE_ROWS,
    )


def interest_rows(histories: pl.DataFrame, vectors: pl.DataFrame) -> pl.DataFrame:
    """Rows of `INTEREST_ROWS` from the histories (`recent_rows`) that an encoder read and the vectors that it made."""
    through = pl.col("event_times_ms").list.max()
    return _shaped(
        histories.select(
            "shopper",
            through.alias("encoded_through_ms"),
            pl.col("log_position").alias("encoded_position"),
            _timestamp(through),
        ).join(vectors, on="shopper", maintain_order="left"),
        INTEREST_ROWS,
    )


def _timestamp(time_ms: pl.Expr) -> pl.Expr:
    return (
        pl.from_epoch(time_ms, time_unit="ms")
        .dt.cast_time_unit("us")
        .dt.replace_time_zone("UTC")
        .alias("event_timestamp")
    )


def _shaped(rows: pl.DataFrame, columns: dict[str, pl.DataType]) -> pl.DataFrame:
    return rows.select(pl.col(name).cast(kind) for name, kind in columns.items())
