"""How items do: decayed popularity, in all and by segment; what is recommended to somebody of whom nothing is known.

popularity = sum over events of weight(type) * 0.5 ** (age / POPULARITY_HALF_LIFE_DAYS), ages counted from the newest
event, so that an old data set works like a running shop.

Segments are the whole shop (""), the top category, and every combination of the country and the device that the
shopper's attributes name (`country`, and `device` among the free ones: events say neither) with the part of the day,
in UTC, in which the event happened.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Final

import polars as pl
from sqlalchemy import Engine, delete, insert

from features.database.models import ItemStatistic
from features.online.rows import STATISTICS_ROWS
from features.schema import EventType

POPULARITY_HALF_LIFE_DAYS: Final = 7.0
POPULARITY_WEIGHTS: Final[dict[EventType, float]] = {
    EventType.VIEW: 0.05,
    EventType.CLICK: 0.05,
    EventType.CART: 0.3,
    EventType.FAVOURITE: 0.3,
    EventType.PURCHASE: 1.0,
}
SEGMENT_ITEMS: Final = 500
"""Items kept in each segment but the whole shop, most popular first."""
SEGMENT_EVENTS: Final = 20
"""A combination with fewer events is left out: it says no more than what it is made of."""
TIME_OF_DAY: Final = "time:"
PARTS_OF_DAY: Final[tuple[str, ...]] = ("night", "morning", "afternoon", "evening")
"""Six hours each, from midnight UTC on."""

_MAX_SEGMENT_CHARS: Final = 128
_DAY_MS: Final = 86_400_000.0
_PART_MS: Final = 86_400_000 // len(PARTS_OF_DAY)
_ESCAPES: Final = (("%", "%25"), ("|", "%7C"))
"""In order. A value that held the separator could make the name that two values make."""
_TRAITS: Final = ("country", "device", "time")
_FIGURES: Final = ("views", "carts", "purchases", "popularity")
_INSERT_ROWS: Final = 10_000

STATISTICS_COLUMNS: Final[dict[str, pl.DataType]] = {
    "item_id": pl.String(),
    "segment": pl.String(),
    "views": pl.Int64(),
    "carts": pl.Int64(),
    "purchases": pl.Int64(),
    "popularity": pl.Float64(),
}


def segments(country: str, device: str, time_ms: int) -> list[str]:
    """The segments of a shopper at a moment, from wide to narrow: country, device in it, part of the day in both.

    What is empty is left out; so is a segment whose name is too long for the table. In the values `%` and `|` are
    escaped, so that different segments have different names.
    """
    for plain, escaped in _ESCAPES:
        country, device = country.replace(plain, escaped), device.replace(plain, escaped)
    parts = [f"country:{country}"] if country else []
    parts += [f"device:{device}"] if device else []
    parts.append(TIME_OF_DAY + PARTS_OF_DAY[time_ms // _PART_MS % len(PARTS_OF_DAY)])
    names = ["|".join(parts[: count + 1]) for count in range(len(parts))]
    return [name for name in names if len(name) <= _MAX_SEGMENT_CHARS]


def item_statistics(
    events: Path | pl.LazyFrame, items: pl.DataFrame, users: pl.DataFrame, at_ms: int | None = None
) -> pl.DataFrame:
    """Columns `STATISTICS_COLUMNS`, sorted by segment, then most popular first; segment empty is the whole shop.

    Args:
        events: a Parquet file or frame with shopper, item_id, event_type, event_time_ms.
        items: the catalogue, with item_id and category_path; items that it lacks are left out unless it is empty.
        users: shopper, country and device.
        at_ms: the moment; later events do not count. The newest event's time if not given.
    """
    source = pl.scan_parquet(events) if isinstance(events, Path) else events
    counted = source.filter(
        pl.col("event_type").is_in([int(kind) for kind in POPULARITY_WEIGHTS]) & pl.col("item_id").is_not_null()
    )
    if at_ms is None:
        at_ms = counted.select(pl.col("event_time_ms").max()).collect().item()
    if at_ms is None:
        return pl.DataFrame(schema=STATISTICS_COLUMNS)
    cells = _cells(counted.filter(pl.col("event_time_ms") <= at_ms), users, at_ms)
    if items.height:
        cells = cells.join(items.select("item_id"), on="item_id", how="semi")
    shop = cells.group_by("item_id").agg(pl.col(_FIGURES).sum()).with_columns(segment=pl.lit(""))
    of_shoppers = pl.concat([_segment(cells, traits) for count in (1, 2, 3) for traits in combinations(_TRAITS, count)])
    top = items.select("item_id", pl.col("category_path").list.first().alias("top")).drop_nulls()
    categories = shop.join(top, on="item_id").with_columns(
        segment=pl.format("category:{}", "top").str.head(_MAX_SEGMENT_CHARS)
    )
    # Sums of floats depend on the order of threads; what is equal should compare equal.
    shop, of_shoppers, categories = (
        part.with_columns(pl.col("popularity").round_sig_figs(12)) for part in (shop, of_shoppers, categories)
    )
    parts = [shop, _most_popular(of_shoppers), _most_popular(categories)]
    statistics = pl.concat(
        [part.select(pl.col(name).cast(kind) for name, kind in STATISTICS_COLUMNS.items()) for part in parts]
    )
    return statistics.sort(["segment", "popularity", "item_id"], descending=[False, True, False])


def write_table(engine: Engine, statistics: pl.DataFrame) -> None:
    """Replaces the table `item_statistics` in one transaction."""
    stamped = statistics.with_columns(computed_time_ms=pl.lit(int(time.time() * 1000), pl.Int64))
    with engine.begin() as connection:
        connection.execute(delete(ItemStatistic))
        for part in stamped.iter_slices(_INSERT_ROWS):
            connection.execute(insert(ItemStatistic), part.to_dicts())


def online_rows(statistics: pl.DataFrame, at_ms: int) -> pl.DataFrame:
    """Rows of `STATISTICS_ROWS`: the whole shop's figures, as of `at_ms`."""
    moment = pl.from_epoch(pl.lit(at_ms, pl.Int64), time_unit="ms").dt.replace_time_zone("UTC")
    return (
        statistics.filter(pl.col("segment") == "")
        .with_columns(event_timestamp=moment)
        .select(pl.col(name).cast(kind) for name, kind in STATISTICS_ROWS.items())
    )


def _cells(events: pl.LazyFrame, users: pl.DataFrame, at_ms: int) -> pl.DataFrame:
    """item_id, country and device (null if not known), time, views, carts, purchases, popularity."""
    kind = pl.col("event_type")
    weights = {int(key): value for key, value in POPULARITY_WEIGHTS.items()}
    weight = kind.replace_strict(weights, return_dtype=pl.Float64)
    age_days = (at_ms - pl.col("event_time_ms")) / _DAY_MS
    part_of_day = (pl.col("event_time_ms") // _PART_MS) % len(PARTS_OF_DAY)
    return (
        events.select("shopper", "item_id", "event_type", "event_time_ms", part_of_day.alias("time"))
        .join(users.lazy().select("shopper", "country", "device"), on="shopper", how="left")
        .group_by("item_id", *_TRAITS)
        .agg(
            kind.is_in([int(EventType.VIEW), int(EventType.CLICK)]).sum().cast(pl.Int64).alias("views"),
            (kind == int(EventType.CART)).sum().cast(pl.Int64).alias("carts"),
            (kind == int(EventType.PURCHASE)).sum().cast(pl.Int64).alias("purchases"),
            (weight * (0.5 ** (age_days / POPULARITY_HALF_LIFE_DAYS))).sum().alias("popularity"),
        )
        .collect(engine="streaming")
        .with_columns(pl.col("time").replace_strict(dict(enumerate(PARTS_OF_DAY)), return_dtype=pl.String))
    )


def _segment(cells: pl.DataFrame, traits: Sequence[str]) -> pl.DataFrame:
    """The items of every segment that these traits make, with its name."""
    known = cells.drop_nulls(list(traits))
    values = {trait: pl.col(trait) for trait in traits}
    for plain, escaped in _ESCAPES:
        values = {trait: value.str.replace_all(plain, escaped, literal=True) for trait, value in values.items()}
    name = pl.concat_str([pl.format(f"{trait}:{{}}", value) for trait, value in values.items()], separator="|")
    found = known.group_by("item_id", segment=name).agg(pl.col(_FIGURES).sum())
    events = pl.sum_horizontal("views", "carts", "purchases").sum().over("segment")
    least = SEGMENT_EVENTS if len(traits) > 1 else 0
    return found.filter(pl.col("segment").str.len_chars() <= _MAX_SEGMENT_CHARS, events >= least)


def _most_popular(segments: pl.DataFrame) -> pl.DataFrame:
    return (
        segments.sort(["segment", "popularity", "item_id"], descending=[False, True, False])
        .group_by("segment", maintain_order=True)
        .head(SEGMENT_ITEMS)
    )
