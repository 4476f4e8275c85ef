"""Figures of chances, worked out by hand, and both reports on a small shop."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import chances, returning
from benchmarks.quality.calibration import forecast, reliability_curve
from features.schema import EventType
from tests.training.conftest import SMALL
from tests.training.shops import DAY_MS, START_MS, Row, visits, write_shop
from training.dataset import DataError, read_log
from training.evaluate import Protocol
from training.pipeline import train


def test_a_forecast_is_scored_against_what_came() -> None:
    said = np.array([0.5, 0.25, 0.25, 0.1])
    came = np.array([True, True, False, False])
    found = forecast(said, came)
    assert (found.count, found.rate) == (4, 0.5) and found.said == pytest.approx(0.275)
    assert found.log_loss == pytest.approx(-np.log([0.5, 0.25, 0.75, 0.9]).mean())
    assert found.base_log_loss == pytest.approx(math.log(2))
    assert found.auc == pytest.approx(3.5 / 4)  # of four pairs one is a tie
    assert found.error == pytest.approx((0.5 + 0.75 + 0.25 + 0.1) / 4)


def test_where_all_came_nothing_is_told_apart() -> None:
    found = forecast(np.array([0.9, 0.8]), np.array([True, True]))
    assert math.isnan(found.auc) and found.explained == 0.0


def test_bins_are_of_equal_counts_and_in_order() -> None:
    said = np.random.default_rng(0).random(1000)
    curve = reliability_curve(said, said > 0.5, bins=10)
    assert curve.counts.tolist() == [100] * 10
    assert (np.diff(curve.said) > 0).all() and curve.came[0] == 0 and curve.came[-1] == 1


def test_the_chances_of_a_trained_shop_are_reported_by_event_and_candidate(tmp_path: Path) -> None:
    write_shop(tmp_path / "offline", visits())
    train(tmp_path / "offline", tmp_path / "training", SMALL, Protocol(), test_from_ms=None, resume=False)
    figures, said = chances.measure(tmp_path)
    assert set(figures) == {kind.name.lower() for kind in said} and EventType.VIEW in said
    for rows in figures.values():
        assert {"all candidates", "model's best 10", "likeliest hundredth"} <= rows.keys()
        assert rows["all candidates"].count > rows["model's best 10"].count > 0
    assert len(chances.tables(figures)) == len(figures)
    chances.plot(tmp_path / "chances.png", said)
    assert (tmp_path / "chances.png").stat().st_size > 0


def test_a_shop_without_a_trained_model_is_refused(tmp_path: Path) -> None:
    write_shop(tmp_path / "offline", visits())
    with pytest.raises(DataError, match="training train"):
        chances.measure(tmp_path)


def test_coming_back_is_reported_beside_recency_and_frequency(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows: list[Row] = []
    for shopper in range(300):
        every_days = 6 if shopper % 2 else 50  # regulars and those who hardly ever come
        for day in range(int(draw.integers(every_days)), 120, every_days):
            rows.append((f"u:{shopper}", "i001", EventType.VIEW, START_MS + day * DAY_MS, None, None))
    log, _ = read_log(write_shop(tmp_path, rows))
    said, came = returning.measure(log)
    assert list(said) == ["Braid", "recency and frequency"]
    assert all(len(values) == len(came) for values in said.values())
    figures = {model: forecast(values, came) for model, values in said.items()}
    assert figures["Braid"].auc > 0.8
    assert len(returning.table("small", figures).rows) == 2
    returning.plot(tmp_path / "returning.png", said, came)


def test_a_log_that_is_too_short_to_report_on_says_so(tmp_path: Path) -> None:
    log, _ = read_log(write_shop(tmp_path, visits(days=50)))
    with pytest.raises(DataError, match="67 days"):
        returning.measure(log)
