"""The offline files as flat arrays: every shopper's events in time order, by shopper."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from features.inputs.codes import CodeVocabularies, fit_codes, shopper_codes
from features.schema import SEQUENCE_TYPES, UNKNOWN, VISIT_GAP_S, EventType
from training.moments import Ints, Longs, Moments, purchase_moments


class DataError(Exception):
    """The offline files cannot be trained on; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """When each event of a log was known, all (n,). sessions: number of its session, -1 where it has none."""

    arrival_ms: Longs
    known_ms: Longs
    """As its shopper's: `features.offline.point_in_time`."""
    sessions: Longs


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Every sequence event, sorted by shopper and time.

    catalogue: frame of items, row i is item i. purchases: events as `features.offline.history.PurchaseHistory` reads
    them, with the shopper's row as `shopper`. items, types, times_ms, visits: (n,). starts: (S + 1,) rows of each
    shopper. codes: int32 (S, 3), `schema.SHOPPER_CODES`.
    """

    catalogue: pl.DataFrame
    purchases: pl.DataFrame
    shopper_ids: list[str]
    items: Ints
    types: Ints
    times_ms: Longs
    visits: Longs
    starts: Longs
    codes: Ints
    vocabularies: CodeVocabularies
    keys: Longs
    """(n,) shopper and time in one sortable number."""
    arrivals: Arrivals | None = None
    """None where every event was known when it happened."""

    @property
    def item_count(self) -> int:
        """N."""
        return self.catalogue.height

    @property
    def shoppers(self) -> Longs:
        """The shopper's row of each event, (n,)."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def known_by(self, time_ms: int) -> npt.NDArray[np.bool_]:
        """Which events lie before a time and were known then, (n,)."""
        before: npt.NDArray[np.bool_] = self.times_ms < time_ms
        return before if self.arrivals is None else before & (self.arrivals.known_ms <= time_ms)

    def rows_before(self, shoppers: Longs, times_ms: Longs) -> Longs:
        """First row of each shopper that is not before its time: the end of what was known then."""
        return np.asarray(np.searchsorted(self.keys, sort_keys(shoppers, times_ms, self.times_ms), side="left"))


def read_log(
    folder: Path,
    vocabularies: CodeVocabularies | None = None,
    catalogue: pl.DataFrame | None = None,
    *,
    grow: bool = False,
) -> tuple[Log, Moments]:
    """Reads `events.parquet`, `items.parquet` and `users.parquet` as `python -m features build` writes them.

    Args:
        vocabularies, catalogue: those of an earlier run; by default fitted on the users, and `items.parquet`.
        grow: what the users hold beyond the vocabularies given gets codes behind theirs.

    Raises:
        DataError: a file is missing, or there is nothing to learn from.
    """
    for name in ("events.parquet", "items.parquet", "users.parquet"):
        if not (folder / name).exists():
            raise DataError(f"{folder / name} is missing; run `python -m features build` first")
    own = catalogue is None
    if catalogue is None:
        catalogue = pl.read_parquet(folder / "items.parquet").sort("item_id")
    events = _events(folder / "events.parquet", catalogue)
    if not events.height:
        raise DataError(f"{folder} holds no events; import some, and run `python -m features build` again")
    if not catalogue.height:
        raise DataError(
            f"{folder} holds events and no items; import again with a file of items (--items FILE), or add a section "
            "items to the mapping (items: {source: events, id: COLUMN} takes them out of the events), and run "
            "`python -m features build` again"
        )
    if own and (events["item"] == UNKNOWN).all():
        raise DataError(
            f"{folder}: none of {events.height:,} events is on an item of the catalogue, whose ids look like "
            f"{catalogue['item_id'][0]!r}, those of the events like {events['item_id'][0]!r}; import the items with "
            "the ids that the events have (items.id in the mapping), and run `python -m features build` again"
        )
    shopper_ids = events["shopper"].filter(events["first"]).to_list()
    rows = np.flatnonzero(events["first"].to_numpy())
    starts = np.append(rows, events.height).astype(np.int64)
    users = pl.DataFrame({"shopper": shopper_ids}).join(
        pl.read_parquet(folder / "users.parquet"), on="shopper", how="left", maintain_order="left"
    )
    if vocabularies is None or grow:
        fitted = CodeVocabularies(
            gender=fit_codes(users["gender"].to_list()), country=fit_codes(users["country"].to_list()), device={}
        )
        vocabularies = fitted if vocabularies is None else vocabularies.grown(fitted)
    times_ms = events["event_time_ms"].to_numpy().astype(np.int64)
    number = events["number"].to_numpy().astype(np.int64)
    log = Log(
        catalogue=catalogue,
        purchases=events.filter(pl.col("event_type") == int(EventType.PURCHASE)).select(
            pl.col("number").alias("shopper"), "item_id", "event_type", "event_time_ms", "order_id"
        ),
        shopper_ids=shopper_ids,
        items=events["item"].to_numpy().astype(np.int32),
        types=events["event_type"].to_numpy().astype(np.int32),
        times_ms=times_ms,
        visits=events["visit"].to_numpy().astype(np.int64),
        starts=starts,
        codes=shopper_codes(
            users["age"].to_list(), users["gender"].to_list(), users["country"].to_list(), vocabularies
        ),
        vocabularies=vocabularies,
        keys=sort_keys(number, times_ms, times_ms),
        arrivals=_arrivals(events),
    )
    return log, purchase_moments(events)


def sort_keys(shoppers: Longs, times_ms: Longs, all_times_ms: Longs) -> Longs:
    """One number that sorts by shopper, then time; times before or behind the log's are taken as its edges."""
    first, span = all_times_ms.min(), all_times_ms.max() - all_times_ms.min() + 2
    keys: Longs = shoppers * span + np.clip(times_ms - first, 0, span - 1)
    return keys


def _arrivals(events: pl.DataFrame) -> Arrivals | None:
    if not (events["known_time_ms"] > events["event_time_ms"]).any():
        return None
    sessions = events["session_id"].rank("dense").cast(pl.Int64).fill_null(-1)
    return Arrivals(
        arrival_ms=events["arrival_time_ms"].to_numpy().astype(np.int64),
        known_ms=events["known_time_ms"].to_numpy().astype(np.int64),
        sessions=sessions.to_numpy(),
    )


def _events(path: Path, catalogue: pl.DataFrame) -> pl.DataFrame:
    """Sequence events with item index, shopper number, visit and basket."""
    if "known_time_ms" not in pl.read_parquet_schema(path):
        raise DataError(f"{path} is of an older version; run `python -m features build` again")
    index = catalogue.select("item_id", item=pl.int_range(pl.len(), dtype=pl.Int32))
    purchase = pl.col("event_type") == int(EventType.PURCHASE)
    return (
        pl.scan_parquet(path)
        .filter(pl.col("event_type").is_in([int(kind) for kind in SEQUENCE_TYPES]), pl.col("item_id").is_not_null())
        .select(
            *("shopper", "item_id", "event_type", "event_time_ms", "order_id", "session_id"),
            *("arrival_time_ms", "known_time_ms"),
        )
        .collect()
        .join(index, on="item_id", how="left", maintain_order="left")
        .with_columns(pl.col("item").fill_null(UNKNOWN), first=pl.col("shopper").ne_missing(pl.col("shopper").shift(1)))
        .with_columns(number=pl.col("first").cum_sum().cast(pl.Int64) - 1)
        .with_columns(
            visit=(
                pl.col("first")
                | (pl.col("event_time_ms").diff().fill_null(0) > 1000 * VISIT_GAP_S)
                | pl.col("session_id").ne_missing(pl.col("session_id").shift(1))
            ).cum_sum()
        )
        .with_columns(by_order=pl.col("session_id").is_null() & pl.col("order_id").is_not_null())
        .with_columns(
            basket_key=pl.when("by_order").then(pl.format("o:{}", "order_id")).otherwise(pl.format("v:{}", "visit"))
        )
        .with_columns(basket=pl.when(purchase).then(pl.struct("number", "basket_key").rank("dense").cast(pl.Int64)))
    )
