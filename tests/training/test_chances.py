"""Chances: logistic regression, what came within the window, nothing learned from the test, and reasons that hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.inputs.outcome_features import outcome_features
from features.inputs.shopper import Events, Purchase, Purchases, ShopperEvent, ShopperFeatures, ShopperQuery, merge
from features.online.rows import newest_events, purchase_rows, purchases, recent_rows
from features.schema import OUTCOME_FEATURES, EventType
from features.shop.catalogue import CatalogueItem
from server.catalogue.catalogue_index import CatalogueIndex
from server.releases.loaded_release import unit_length
from server.select.chances import acts_of
from server.select.reasons import kinship
from tests.training.shops import DAY_MS, MINUTE_MS, START_MS, Row, visits, write_shop
from training.asked import acts_before, asked_moments
from training.dataset import Log, read_log
from training.logistic import base_rate, fit_logistic
from training.moments import Moments
from training.outcomes import Candidates, Shelves, calibrate, candidates, outcomes
from training.returning import comes_back, fit_return
from training.scoring import ModelScorer
from training.trained import TrainedModel

HOUR_MS = 60 * MINUTE_MS


def moments_at(shoppers: list[int], times_ms: list[int]) -> Moments:
    return Moments(
        shoppers=np.array(shoppers, np.int64),
        times_ms=np.array(times_ms, np.int64),
        targets=np.zeros(0, np.int32),
        offsets=np.zeros(len(shoppers) + 1, np.int64),
    )


def log_of(folder: Path, rows: list[Row]) -> Log:
    return read_log(write_shop(folder, rows))[0]


def test_the_weights_that_made_the_outcomes_are_found_again() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40_000, 3)) * [1.0, 10.0, 0.1] + [0.0, 5.0, 0.0]
    chances = 1 / (1 + np.exp(-(features @ [1.0, -0.2, 3.0] - 2.0)))
    came = rng.random(len(chances)) < chances
    model = fit_logistic(features, came)
    assert model.weights == pytest.approx([1.0, -0.2, 3.0], rel=0.15)
    assert model.probability(features).mean() == pytest.approx(came.mean(), abs=1e-4)


def test_outcomes_that_features_tell_apart_fully_have_finite_weights() -> None:
    features = np.array([[-1.0, 0.0]] * 20 + [[1.0, 0.0]] * 20)
    model = fit_logistic(features, np.arange(40) >= 20)
    assert np.isfinite(model.weights).all() and model.probability(features)[-1] > 0.9


def test_the_base_rate_is_never_certain() -> None:
    assert base_rate(np.ones(98, np.bool_), 2).probability(np.ones((1, 2)))[0] == pytest.approx(0.99)


def test_an_outcome_counts_within_a_day_and_by_its_type(tmp_path: Path) -> None:
    asked_ms = START_MS + DAY_MS
    rows: list[Row] = [
        ("u:a", "i001", EventType.VIEW, asked_ms - HOUR_MS, None, "s1"),
        ("u:a", "i002", EventType.VIEW, asked_ms + HOUR_MS, None, "s2"),
        ("u:a", "i003", EventType.PURCHASE, asked_ms + 23 * HOUR_MS, "o1", "s3"),
        ("u:a", "i004", EventType.PURCHASE, asked_ms + 25 * HOUR_MS, "o2", "s4"),
        ("u:b", "i001", EventType.PURCHASE, asked_ms + HOUR_MS, "o3", "s5"),
    ]
    log = log_of(tmp_path, rows)
    moments = moments_at([0], [asked_ms])
    everything = np.arange(log.item_count)
    came = outcomes(log, moments, [_asked(0, everything)])
    assert np.flatnonzero(came[EventType.VIEW]).tolist() == [2]
    assert np.flatnonzero(came[EventType.PURCHASE]).tolist() == [3]
    assert not came[EventType.CART].any()


def _asked(row: int, items: np.ndarray) -> Candidates:
    nothing = np.zeros(len(items), np.bool_)
    return Candidates(
        row=row,
        items=items,
        features=np.zeros((len(items), len(OUTCOME_FEATURES)), np.float32),
        best_first=np.zeros(len(items), np.int64),
        own=nothing,
        drawn=nothing,
    )


def test_moments_see_the_event_that_they_follow_and_lie_in_their_span(offline: Path) -> None:
    log, _ = read_log(offline)
    from_ms, to_ms = START_MS + 20 * DAY_MS, START_MS + 40 * DAY_MS
    moments = asked_moments(log, from_ms, to_ms, 400, seed=0)
    assert 300 <= len(moments) <= 400
    assert ((moments.times_ms > from_ms) & (moments.times_ms <= to_ms)).all()
    ends = log.rows_before(moments.shoppers, moments.times_ms)
    assert (ends > log.starts[moments.shoppers]).all()
    just_before = log.times_ms[ends - 1] == moments.times_ms - 1
    assert 0.6 < just_before.mean() < 0.95
    assert not len(asked_moments(log, to_ms, from_ms, 400, seed=0))


def test_nothing_of_the_test_is_learned(trained: TrainedModel, offline: Path, tmp_path: Path) -> None:
    until_ms = START_MS + 50 * DAY_MS
    kept = [row for row in visits() if row[3] < until_ms]
    whole, _ = read_log(offline, trained.codes, trained.items)
    cut, _ = read_log(write_shop(tmp_path, kept), trained.codes, trained.items)
    popularity = np.ones(whole.item_count, np.float32)
    from_ms = START_MS + 40 * DAY_MS
    one, other = (calibrate(trained.model, log, popularity, from_ms, until_ms) for log in (whole, cut))
    assert one and one.keys() == other.keys()
    for kind, model in one.items():
        assert model.weights == pytest.approx(other[kind].weights, rel=1e-4, abs=1e-5)
    returns = [fit_return(log, until_ms) for log in (whole, cut)]
    assert returns[0] is not None and returns[1] is not None
    assert returns[0].weights == pytest.approx(returns[1].weights, rel=1e-6, abs=1e-9)


def test_a_trained_run_tells_chances_that_mean_something(trained: TrainedModel, offline: Path) -> None:
    log, _ = read_log(offline, trained.codes, trained.items)
    moments = asked_moments(log, START_MS + 54 * DAY_MS, START_MS + 58 * DAY_MS, 400, seed=1)
    popularity = np.ones(log.item_count, np.float32)
    asked = list(candidates(trained.model, log, moments, popularity, Shelves()))
    came = outcomes(log, moments, asked)[EventType.PURCHASE]
    chances = trained.probabilities.outcomes[EventType.PURCHASE].probability(
        np.concatenate([part.features for part in asked])
    )
    assert chances.mean() == pytest.approx(came.mean(), rel=0.6)
    assert chances[came].mean() > 2 * chances[~came].mean()


def test_another_visit_within_thirty_days_is_a_return_and_the_one_under_way_is_none(tmp_path: Path) -> None:
    at_ms = START_MS + 10 * DAY_MS
    rows: list[Row] = []
    for shopper, later_ms in (("u:a", 5 * MINUTE_MS), ("u:b", 2 * HOUR_MS), ("u:c", 29 * DAY_MS), ("u:d", 31 * DAY_MS)):
        rows.append((shopper, "i001", EventType.VIEW, at_ms - MINUTE_MS, None, None))
        rows.append((shopper, "i002", EventType.VIEW, at_ms + later_ms, None, None))
    log = log_of(tmp_path, rows)
    assert comes_back(log, moments_at([0, 1, 2, 3], [at_ms] * 4)).tolist() == [False, True, True, False]


def test_a_log_that_is_too_short_tells_no_return(tmp_path: Path) -> None:
    assert fit_return(log_of(tmp_path, visits(days=20)), START_MS + 20 * DAY_MS) is None


def test_the_gateway_reads_the_same_acts_as_training(offline: Path) -> None:
    log, _ = read_log(offline)
    events = pl.read_parquet(offline / "events.parquet")
    index = CatalogueIndex()
    index.apply(CatalogueItem(item_id=item_id) for item_id in log.catalogue["item_id"])
    for shopper in range(0, len(log.shopper_ids), 7):
        now_ms = START_MS + 45 * DAY_MS
        key = log.shopper_ids[shopper]
        before = events.filter((pl.col("shopper") == key) & (pl.col("event_time_ms") < now_ms))
        row = features_of(before)
        seen = merge([row], ShopperQuery(user_id=key[2:], session_id="", now_ms=now_ms))
        (expected, _), *_ = acts_before(log, moments_at([shopper], [now_ms]))
        items, relative = np.arange(log.item_count), np.zeros(log.item_count, np.float32)
        rows = index.rows(log.catalogue["item_id"].to_list())
        np.testing.assert_allclose(
            outcome_features(rows, relative, relative, acts_of(seen, index)),
            outcome_features(items, relative, relative, expected),
            rtol=1e-5,
        )


def features_of(events: pl.DataFrame) -> ShopperFeatures:
    """One row of the feature store, as the batch build makes it."""
    recent = recent_rows(newest_events(events)).to_dicts()
    bought = purchase_rows(purchases(events)).to_dicts()
    recent_columns = ("event_ids", "item_ids", "event_types", "event_times_ms")
    bought_columns = ("item_ids", "counts", "first_times_ms", "last_times_ms")
    return ShopperFeatures(
        recent=Events.of(
            ShopperEvent(*event)
            for row in recent
            for event in zip(*(row[name] for name in recent_columns), strict=True)
        ),
        purchases=Purchases.of(
            Purchase(*item) for row in bought for item in zip(*(row[name] for name in bought_columns), strict=True)
        ),
        basket_count=bought[0]["basket_count"] if bought else 0,
    )


def test_without_what_is_nearest_to_it_an_item_that_lasting_taste_carries_falls_furthest(
    trained: TrainedModel, offline: Path, tmp_path: Path
) -> None:
    log, _ = read_log(offline, trained.codes, trained.items)
    now_ms = START_MS + 54 * DAY_MS  # a midnight: the long-term strand has read everything
    shoppers = list(range(len(log.shopper_ids)))
    scores = ModelScorer(trained.model, log)(moments_at(shoppers, [now_ms] * len(shoppers)))
    vectors = trained.model.tower()[0].detach().numpy()
    units, rng = unit_length(vectors), np.random.default_rng(0)
    nearest, any_other, best = [], [], scores.argmax(axis=1)
    for shopper in shoppers:
        end = log.rows_before(np.array([shopper]), np.array([now_ms]))[0]
        seen = np.unique(log.items[max(log.starts[shopper], end - 50) : end])
        near = seen[kinship(units[seen], units[best[[shopper]]], units.mean(axis=0))[:, 0].argmax()]
        nearest.append(near)
        any_other.append(rng.choice(seen[seen != near]))

    def without(items: list[int], folder: Path) -> np.ndarray:
        ids = log.catalogue["item_id"]
        left_out = {(log.shopper_ids[shopper], ids[int(item)]) for shopper, item in enumerate(items)}
        rest = write_shop(folder, [row for row in visits() if (row[0], row[1]) not in left_out])
        other, _ = read_log(rest, trained.codes, trained.items)
        assert other.shopper_ids == log.shopper_ids
        return ModelScorer(trained.model, other)(moments_at(shoppers, [now_ms] * len(shoppers)))

    at = np.arange(len(shoppers)), best
    fall = (scores[at] - without(nearest, tmp_path / "nearest")[at]).mean()
    chance = (scores[at] - without(any_other, tmp_path / "other")[at]).mean()
    assert fall > chance + 0.1
