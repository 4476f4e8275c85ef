"""Training sees what had arrived: a late backfill enters no moment before it came, and what came in time stays."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from features.database.engine import open_database
from features.log.event_log import EventLog, NewEvent
from features.offline.build import build
from features.schema import PADDING, EventType
from features.settings import Settings
from features.shop.catalogue import Catalogue, CatalogueItem
from tests.training.shops import DAY_MS, MINUTE_MS, START_MS, visits, write_shop
from training.arrivals import known_then
from training.batches import Batch, BatchMaker
from training.dataset import Log, read_log
from training.evaluate import events_before
from training.moments import Moments

VIEW, PURCHASE = EventType.VIEW, EventType.PURCHASE
ITEMS = 40


def arrive(folder: Path, arrival_ms: pl.Expr, known_ms: pl.Expr | None = None) -> tuple[Log, Moments]:
    """The small shop, its events arriving at other times than they happened."""
    path = write_shop(folder, visits(shoppers=12)) / "events.parquet"
    events = pl.read_parquet(path).with_columns(arrival_time_ms=arrival_ms)
    known = pl.col("arrival_time_ms") if known_ms is None else known_ms
    events.with_columns(known_time_ms=known).write_parquet(path)
    return read_log(folder)


def batches_of(log: Log, moments: Moments) -> list[Batch]:
    maker = BatchMaker(log, overlap=True)
    return list(maker.batches(maker.ask(moments), batch_examples=32))


def visible(log: Log, moments: Moments, row: int) -> np.ndarray:
    """Rows of the log that a moment could see, one by one: those before it that had arrived."""
    assert log.arrivals is not None
    shopper, now_ms = moments.shoppers[row], moments.times_ms[row]
    rows = np.arange(log.starts[shopper], log.starts[shopper + 1])
    return rows[(log.times_ms[rows] < now_ms) & (log.arrivals.known_ms[rows] <= now_ms)]


TIME = pl.col("event_time_ms")
LATE = {
    "a moment late": TIME + 130_000,  # the last event or two of a visit are on their way
    "a third of them days late": TIME + pl.when(pl.col("position") % 3 == 0).then(9 * DAY_MS).otherwise(0),
    "a backfill at the end": pl.when(pl.col("position") % 4 == 0).then(TIME.max()).otherwise(TIME),
    "everything at the end": TIME.max() + 1,
}


@pytest.mark.parametrize("arrival_ms", LATE.values(), ids=LATE.keys())
def test_every_strand_holds_what_had_arrived_and_nothing_else(tmp_path: Path, arrival_ms: pl.Expr) -> None:
    log, moments = arrive(tmp_path, arrival_ms)
    seen = hidden = 0
    for batch in batches_of(log, moments):
        for at, row in enumerate(batch.rows):
            rows, now_ms = visible(log, moments, row), moments.times_ms[row]
            hidden += (
                int(log.rows_before(moments.shoppers, moments.times_ms)[row])
                - int(log.starts[moments.shoppers[row]])
                - len(rows)
            )
            kept = batch.seen_types[at] > 0
            assert batch.seen_items[at][kept].tolist() == log.items[rows][-50:].tolist()
            assert batch.seen_ages[at][kept].tolist() == pytest.approx((now_ms - log.times_ms[rows][-50:]) / 1000)
            assert bool(batch.short_mask[at]) == bool(len(rows))
            if len(rows):
                recent = batch.recent.row[at], slice(0, batch.recent.last[at] + 1)
                assert batch.recent.items[recent].tolist() == log.items[rows][-50:].tolist()
                gaps = np.diff(log.times_ms[rows][-50:]) / 1000
                assert batch.recent.gaps[recent][1:].tolist() == pytest.approx(gaps)
                session = int((now_ms - log.times_ms[rows] < 30 * MINUTE_MS).sum())
                assert int(batch.session_events[at]) == session
            history = rows[log.times_ms[rows] < now_ms // DAY_MS * DAY_MS]
            assert bool(batch.long_mask[at]) == bool(len(history))
            if len(history):
                read = batch.history.items[batch.history.row[at], : batch.history.last[at] + 1]
                assert read.tolist() == log.items[history].tolist()
            bought = set(log.items[rows[log.types[rows] == PURCHASE]].tolist())
            assert set(batch.own_items[at].tolist()) - {PADDING} == bought
            assert batch.target_item[batch.target_row == at].tolist() == moments.targets_of(row).tolist()
            seen += 1
    assert seen == len(moments) and hidden


@pytest.mark.parametrize("arrival_ms", LATE.values(), ids=LATE.keys())
def test_what_the_baselines_count_had_arrived_too(tmp_path: Path, arrival_ms: pl.Expr) -> None:
    log, moments = arrive(tmp_path, arrival_ms)
    row, event = events_before(log, moments)
    for at in range(len(moments)):
        assert event[row == at].tolist() == visible(log, moments, at).tolist()


def test_moments_that_miss_the_same_backfill_share_one_copy(tmp_path: Path) -> None:
    log, moments = arrive(tmp_path, LATE["a backfill at the end"])
    known = known_then(log, moments)
    copies = len(known.log.starts) - len(log.starts)
    assert 0 < copies <= len(log.starts) - 1
    assert (known.log.starts[-1] - log.starts[-1]) < log.starts[-1]


@pytest.mark.timeout(10)
def test_a_shopper_with_very_many_moments_that_miss_a_backfill_takes_no_longer_than_many_shoppers(
    tmp_path: Path,
) -> None:
    rows = [
        ("u:a", f"i{at % ITEMS:03d}", PURCHASE, START_MS + at * 60 * MINUTE_MS, f"o{at}", None) for at in range(12_000)
    ]
    path = write_shop(tmp_path, rows) / "events.parquet"
    late = pl.when(pl.col("position") % 5 == 0).then(TIME.max()).otherwise(TIME)
    pl.read_parquet(path).with_columns(arrival_time_ms=late, known_time_ms=late).write_parquet(path)
    log, moments = read_log(tmp_path)
    known = known_then(log, moments)
    assert (len(moments), len(known.log.starts) - len(log.starts)) == (1000, 1)


def test_histories_that_end_early_need_no_copy(tmp_path: Path) -> None:
    log, moments = arrive(tmp_path, LATE["a moment late"])
    known = known_then(log, moments)
    assert known.log is log and (known.until_ms < moments.times_ms).any()


def test_what_arrived_before_the_next_moment_is_all_kept(tmp_path: Path) -> None:
    on_time, late = arrive(tmp_path / "a", TIME), arrive(tmp_path / "b", TIME + 200)
    assert on_time[0].arrivals is None and late[0].arrivals is not None
    for expected, found in zip(batches_of(*on_time), batches_of(*late), strict=True):
        for field in fields(Batch):
            one, other = getattr(expected, field.name), getattr(found, field.name)
            if isinstance(one, torch.Tensor):
                assert torch.equal(one, other), field.name


def test_what_a_session_did_before_its_sign_in_is_seen_in_the_session_and_elsewhere_only_after(tmp_path: Path) -> None:
    rows = [
        ("u:a", "i001", VIEW, START_MS, None, "phone"),
        ("u:a", "i009", VIEW, START_MS + 2 * MINUTE_MS, None, "desk"),  # nobody knows yet that this is a
        ("u:a", "i002", PURCHASE, START_MS + 3 * MINUTE_MS, "o1", "phone"),
        ("u:a", "i010", PURCHASE, START_MS + 4 * MINUTE_MS, "o2", "desk"),  # signs in with this
        ("u:a", "i003", PURCHASE, START_MS + 40 * MINUTE_MS, "o3", "phone"),
    ]
    path = write_shop(tmp_path, list(rows)) / "events.parquet"
    known_ms = pl.when(pl.col("item_id") == "i009").then(START_MS + 4 * MINUTE_MS).otherwise(TIME)
    pl.read_parquet(path).with_columns(known_time_ms=known_ms).write_parquet(path)
    log, moments = read_log(tmp_path)
    (batch,) = batches_of(log, moments)
    seen = {
        int(moments.targets_of(row)[0]): batch.seen_items[at][batch.seen_types[at] > 0].tolist()
        for at, row in enumerate(batch.rows)
    }
    assert seen == {2: [1], 10: [1, 9, 2], 3: [1, 9, 2, 10]}


def test_a_late_backfill_through_the_log_does_not_leak(settings: Settings) -> None:
    engine = open_database(settings.log_url)
    Catalogue(engine).upsert([CatalogueItem(item_id=f"i{number:03}", category_path=["Top"]) for number in range(9)])
    log = EventLog(engine)

    def write(event_id: str, item: int, kind: EventType, time_ms: int, arrival_ms: int) -> None:
        event = NewEvent(
            event_id=event_id,
            event_type=kind,
            event_time_ms=time_ms,
            user_id="anna",
            session_id=None,
            item_id=f"i{item:03}",
            order_id=event_id if kind == PURCHASE else None,
        )
        log.append([event], arrival_ms)

    write("on time", 1, VIEW, START_MS, START_MS + 50)
    write("early", 2, PURCHASE, START_MS + DAY_MS, START_MS + DAY_MS + 50)
    write("backfill", 3, PURCHASE, START_MS - DAY_MS, START_MS + 2 * DAY_MS)
    write("after", 4, PURCHASE, START_MS + 3 * DAY_MS, START_MS + 3 * DAY_MS + 50)
    engine.dispose()
    build(settings)
    (batch,) = batches_of(*read_log(settings.offline))
    seen = [items[types > 0].tolist() for items, types in zip(batch.seen_items, batch.seen_types, strict=True)]
    own = [sorted(set(items.tolist()) - {PADDING}) for items in batch.own_items]
    by_target = dict(zip(batch.target_item.tolist(), zip(seen, own, strict=True), strict=True))
    assert by_target == {3: ([], []), 2: ([1], []), 4: ([3, 1, 2], [2, 3])}
