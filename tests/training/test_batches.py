"""Training sees what serving would have seen: strands, own items, codes, all cut at the moment."""

from pathlib import Path

import numpy as np
import pytest
import torch

from features.schema import HISTORY_EVENTS, PADDING, RECENT_EVENTS, EventType
from tests.training.shops import DAY_MS, MINUTE_MS, START_MS, Row, write_shop
from training.batches import BatchMaker
from training.dataset import Log, read_log
from training.moments import Moments

VIEW, PURCHASE = EventType.VIEW, EventType.PURCHASE


@pytest.fixture(scope="module")
def shop(offline: Path) -> tuple[Log, Moments]:
    return read_log(offline)


def test_every_strand_of_every_moment_is_what_was_known_then(shop: tuple[Log, Moments]) -> None:
    log, moments = shop
    seen = 0
    maker = BatchMaker(log, overlap=True)
    for batch in maker.batches(maker.ask(moments), batch_examples=32):
        for at, row in enumerate(batch.rows):
            now, shopper = moments.times_ms[row], moments.shoppers[row]
            rows = np.arange(log.starts[shopper], log.starts[shopper + 1])
            before = rows[log.times_ms[rows] < now][-RECENT_EVENTS:]
            kept = batch.seen_types[at] > 0
            assert batch.seen_items[at][kept].tolist() == log.items[before].tolist()
            ages = (now - log.times_ms[before]) / 1000
            assert batch.seen_ages[at][kept].tolist() == pytest.approx(ages)
            assert bool(batch.short_mask[at]) == bool(len(before))
            if len(before):
                recent = batch.recent.row[at], slice(0, batch.recent.last[at] + 1)
                assert batch.recent.items[recent].tolist() == log.items[before].tolist()
                assert batch.recent.gaps[recent][1:].tolist() == pytest.approx(ages[:-1] - ages[1:])
                assert float(batch.recent_age[at]) == pytest.approx(ages[-1])
                assert int(batch.session_events[at]) == (ages < 1800).sum()
            history = rows[log.times_ms[rows] < now // DAY_MS * DAY_MS]
            assert bool(batch.long_mask[at]) == bool(len(history))
            if len(history):
                read = batch.history.items[batch.history.row[at], : batch.history.last[at] + 1]
                assert read.tolist() == log.items[history].tolist()
                assert int(batch.unseen_events[at]) == min(len(rows[log.times_ms[rows] < now]) - len(history), 50)
                assert float(batch.long_age[at]) == pytest.approx((now - log.times_ms[history[-1]]) / 1000)
            bought = set(log.items[rows[(log.times_ms[rows] < now) & (log.types[rows] == PURCHASE)]].tolist())
            assert set(batch.own_items[at].tolist()) - {PADDING} == bought
            targets = batch.target_item[batch.target_row == at]
            assert targets.tolist() == moments.targets_of(row).tolist()
            seen += 1
    assert seen == len(moments)


def test_the_recent_strand_begins_where_the_long_one_ends(shop: tuple[Log, Moments]) -> None:
    log, moments = shop
    maker = BatchMaker(log)
    asked = maker.ask(moments)
    rng = np.random.default_rng(1)
    lengths = set()
    for batch in maker.batches(asked, batch_examples=32, rng=rng, late_share=0.3, drop_long=0.3):
        for at, row in enumerate(batch.rows):
            shopper = moments.shoppers[row]
            known = log.items[log.starts[shopper] : log.rows_before(moments.shoppers, moments.times_ms)[row]].tolist()
            history = batch.history.items[batch.history.row[at], : batch.history.last[at] + 1].tolist()
            recent = batch.recent.items[batch.recent.row[at], : batch.recent.last[at] + 1].tolist()
            history, recent = history * bool(batch.long_mask[at]), recent * bool(batch.short_mask[at])
            unseen = known[len(known) - int(batch.unseen_events[at]) :]
            assert recent == unseen[len(unseen) - len(recent) :] and len(recent) >= min(len(unseen), RECENT_EVENTS // 2)
            if len(unseen) < RECENT_EVENTS:
                assert history == known[: len(known) - len(unseen)][-len(history) :] or not history
                assert bool(history) == (len(unseen) < len(known))
            lengths.add((bool(history), bool(recent)))
    assert lengths == {(True, True), (False, True)}


def test_late_jobs_end_the_long_strand_earlier_and_leave_the_recent_one(shop: tuple[Log, Moments]) -> None:
    log, moments = shop
    ages = {}
    for share in (0.0, 0.99):
        maker = BatchMaker(log)
        parts = maker.batches(
            maker.ask(moments),
            batch_examples=64,
            rng=np.random.default_rng(3),
            late_share=share,
            segment_examples=1 << 20,
        )
        ages[share] = {
            int(row): (float(age), recent.tolist())
            for batch in parts
            for row, age, recent in zip(batch.rows, batch.long_age, batch.seen_items, strict=True)
        }
    later = [ages[0.99][row][0] >= ages[0.0][row][0] or ages[0.99][row][0] == 0 for row in ages[0.0]]
    assert all(later)
    assert any(ages[0.99][row][0] > ages[0.0][row][0] for row in ages[0.0])


def test_a_long_history_is_read_in_overlapping_stretches(tmp_path: Path) -> None:
    rows: list[Row] = [
        ("u:a", f"i{at % 40:03d}", VIEW, START_MS + at * 60 * MINUTE_MS, None, None) for at in range(1700)
    ]
    rows += [("u:a", "i001", PURCHASE, START_MS + (n * 100 + 30) * 60 * MINUTE_MS, f"o{n}", None) for n in range(17)]
    log, moments = read_log(write_shop(tmp_path, rows))
    maker = BatchMaker(log)
    for batch in maker.batches(maker.ask(moments), batch_examples=3, rng=np.random.default_rng(0)):
        assert batch.history.items.shape[1] <= HISTORY_EVENTS
        for at, row in enumerate(batch.rows):
            through = moments.times_ms[row] // DAY_MS * DAY_MS
            history = log.items[: log.rows_before(np.array([0]), np.array([through]))[0]]
            read = batch.history.items[batch.history.row[at], : batch.history.last[at] + 1].tolist()
            assert len(read) >= min(len(history), HISTORY_EVENTS // 2)
            assert read == history[len(history) - len(read) :].tolist()


def test_a_limit_on_moments_of_one_stretch_draws_others_in_each_epoch(shop: tuple[Log, Moments]) -> None:
    log, moments = shop
    maker = BatchMaker(log)
    asked = maker.ask(moments)

    def drawn(seed: int) -> set[int]:
        parts = maker.batches(asked, batch_examples=64, rng=np.random.default_rng(seed), segment_examples=2)
        return {int(row) for batch in parts for row in batch.rows}

    first, second = drawn(0), drawn(1)
    counts = np.bincount(moments.shoppers[sorted(first)])
    assert counts.max() == 2
    assert first != second
    assert first == drawn(0)


def test_a_moment_without_any_history_has_no_strands(tmp_path: Path) -> None:
    log, moments = read_log(write_shop(tmp_path, [("u:a", "i001", PURCHASE, START_MS, "o", None)]))
    maker = BatchMaker(log)
    (batch,) = maker.batches(maker.ask(moments), batch_examples=8)
    assert (float(batch.long_mask), float(batch.short_mask)) == (0.0, 0.0)
    assert (int(batch.seen_types.sum()), int(batch.own_items.max())) == (0, PADDING)
    assert torch.isfinite(batch.own_features).all()
