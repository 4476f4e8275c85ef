"""What the online store could have shown of a shopper at a moment, cut from the offline events.

An event counts for a moment by when it was known, not by when it happened. It is known from its arrival in the log
on; what an anonymous session did before its person signed in is the session's until the event that signed in has
arrived, and the person's from then on. An import is history that was there from the start: its events arrive when
they happened (`features.importing`). What a gateway wrote arrived when it arrived: a late backfill through
`WriteEvents` enters no moment before that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import polars as pl

from features.online.rows import newest_events, purchase_rows, purchases, recent_rows

READ_TIME: Final = "log_read_ms"
"""Key in the metadata of events.parquet: the file holds every event that was committed by then."""

_NEVER: Final = 2**62
_COLUMNS: Final = (
    "event_id",
    "item_id",
    "event_type",
    "event_time_ms",
    "position",
    "order_id",
)


def with_known_time(events: pl.DataFrame, sign_ins: pl.DataFrame) -> pl.DataFrame:
    """`events` with known_time_ms: from when on each was known as its shopper's.

    Args:
        events: columns shopper, session_id, position, arrival_time_ms.
        sign_ins: as `EventLog.sign_ins` gives them.
    """
    anonymous = pl.col("position") < pl.col("sign_in_position")
    return (
        events.join(sign_ins, on=["session_id", "shopper"], how="left", maintain_order="left")
        .with_columns(
            known_time_ms=pl.max_horizontal("arrival_time_ms", pl.when(anonymous).then(pl.col("sign_in_arrival_ms")))
        )
        .drop("sign_in_position", "sign_in_arrival_ms")
    )


class OfflineEvents:
    """The events of some keys, each with the time in which it was in the row of that key."""

    def __init__(self, events: Path, keys: Sequence[str]) -> None:
        """Reads what the keys need of events.parquet once.

        Args:
            keys: `schema.shopper_key`, a person's or a session's.
        """
        asked = pl.LazyFrame({"key": sorted(set(keys))}, schema={"key": pl.String})
        log = pl.scan_parquet(events).select("shopper", *_COLUMNS, "session_id", "arrival_time_ms", "known_time_ms")
        own = log.with_columns(key="shopper", from_ms="known_time_ms", to_ms=pl.lit(_NEVER))
        anonymous = log.filter(pl.col("arrival_time_ms") < pl.col("known_time_ms")).with_columns(
            key=pl.format("s:{}", "session_id"), from_ms="arrival_time_ms", to_ms="known_time_ms"
        )
        self._events = (
            pl.concat([part.join(asked, on="key", how="semi") for part in (own, anonymous)])
            .select("key", "from_ms", "to_ms", *_COLUMNS)
            .collect()
        )

    def rows_at(self, keys: Sequence[str], times_ms: Sequence[int]) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The rows of n keys, each at its time; an event that became known at the moment itself is in them.

        Returns:
            Rows of `rows.RECENT_ROWS` and `rows.PURCHASE_ROWS` whose `shopper` is the place in `keys`, as text; a key
            that had no such events then has none.
        """
        asked = pl.DataFrame({"key": keys, "at_ms": times_ms}, schema={"key": pl.String, "at_ms": pl.Int64})
        found = (
            asked.with_row_index("shopper")
            .join(self._events, on="key", how="inner")
            .filter(pl.col("from_ms") <= pl.col("at_ms"), pl.col("to_ms") > pl.col("at_ms"))
            .sort("shopper", "event_time_ms", "position")
            .with_columns(pl.col("shopper").cast(pl.String))
        )
        return recent_rows(newest_events(found)), purchase_rows(purchases(found))

    def changes(self, key: str, after_ms: int, through_ms: int) -> list[int]:
        """The times in (after, through] at which the row of `key` changed, ascending."""
        mine = self._events.filter(pl.col("key") == key)
        times = pl.concat([mine["from_ms"], mine["to_ms"]]).unique().sort()
        return times.filter((times > after_ms) & (times <= through_ms)).to_list()
