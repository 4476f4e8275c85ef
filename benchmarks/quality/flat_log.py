"""Sets of data that are only (shopper, item, time), as the `Log` and the `Moments` that every method takes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from features.inputs.codes import CodeVocabularies
from features.inputs.content import CATALOGUE_COLUMNS
from features.schema import SHOPPER_CODES, EventType
from training.dataset import Log, sort_keys
from training.evaluate import TestSet, had_before
from training.moments import DAY_MS, MAX_MOMENTS, Ints, Longs, Moments

START_MS = 946_728_000_000
"""Noon of 2000-01-01, UTC: the first moment of sets without times. Recent events and the midnight before them, where
the long-term strand ends, are then half a day apart."""

PURCHASE_COLUMNS = {
    "shopper": pl.Int64(),
    "item_id": pl.String(),
    "event_type": pl.Int32(),
    "event_time_ms": pl.Int64(),
    "order_id": pl.String(),
}


def flat_log(
    catalogue: pl.DataFrame, shopper_ids: list[str], counts: Longs, items: Ints, times_ms: Longs, visits: Longs
) -> Log:
    """A log of views without any purchase or attribute of a shopper.

    Args:
        counts: (S,) events of each shopper. items, times_ms, visits: (n,), by shopper, then time; times of one
            shopper differ.
    """
    shoppers = np.repeat(np.arange(len(counts)), counts)
    return Log(
        catalogue=catalogue,
        purchases=pl.DataFrame(schema=PURCHASE_COLUMNS),
        shopper_ids=shopper_ids,
        items=items.astype(np.int32),
        types=np.full(len(items), int(EventType.VIEW), np.int32),
        times_ms=times_ms.astype(np.int64),
        visits=visits.astype(np.int64),
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        codes=np.zeros((len(counts), len(SHOPPER_CODES)), np.int32),
        vocabularies=CodeVocabularies(gender={}, country={}, device={}),
        keys=sort_keys(shoppers, times_ms, times_ms),
    )


def bare_catalogue(item_ids: list[str], attributes: list[list[str] | None] | None = None) -> pl.DataFrame:
    """Items of which only the id and perhaps attributes ("name=value") are known, columns `CATALOGUE_COLUMNS`."""
    empty = [None] * len(item_ids)
    columns = {name: empty for name in CATALOGUE_COLUMNS} | {"item_id": item_ids, "attributes": attributes or empty}
    return pl.DataFrame(columns, schema=CATALOGUE_COLUMNS)


def places(log: Log) -> Longs:
    """How many events of its shopper stand before each event, (n,)."""
    return np.arange(len(log.items)) - np.repeat(log.starts[:-1], np.diff(log.starts))


def event_moments(log: Log, rows: Longs) -> Moments:
    """The moments just before the given events, each asking for its event's item, in order of time."""
    rows = rows[np.lexsort((rows, log.times_ms[rows]))]
    return Moments(
        shoppers=log.shoppers[rows],
        times_ms=log.times_ms[rows],
        targets=log.items[rows],
        offsets=np.arange(len(rows) + 1, dtype=np.int64),
    )


def learned_moments(log: Log, learn: npt.NDArray[np.bool_]) -> Moments:
    """A moment for every learned event but a shopper's first; of each shopper the newest `MAX_MOMENTS`.

    Args:
        learn: bool (n,); of each shopper the oldest events.
    """
    learned = np.add.reduceat(np.append(learn, False).astype(np.int64), log.starts[:-1])
    place = places(log)
    kept = learn & (place > 0) & (place >= np.repeat(learned, np.diff(log.starts)) - MAX_MOMENTS)
    return event_moments(log, np.flatnonzero(kept))


def full_test(log: Log, moments: Moments, *, seen_masked: bool) -> TestSet:
    """Every item may be ranked; what counts as repeated is every item that the shopper had an event on."""
    return TestSet(
        moments=moments,
        allowed=np.ones(log.item_count, bool),
        repeated=had_before(log, moments, bought=False),
        seen_masked=seen_masked,
    )


def midnight(time_ms: float) -> int:
    """The last midnight at or before a time."""
    return int(time_ms) // DAY_MS * DAY_MS
