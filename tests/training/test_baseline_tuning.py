"""Settings of the baselines are chosen on the tuning stage alone, what they share is learned once."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.test_baselines import (
    END_MS,
    MANY,
    asked,
    order,
    scores_at,
    stage_of,
)
from training.baselines import Baseline, Setting, baseline, fit_tuned, measure_baselines, tune
from training.baselines.baseline import FOREVER_DAYS, crossed, keep_last, settings
from training.baselines.popularity import fit_popularity
from training.dataset import read_log
from training.evaluate import Protocol, Scorer, Stage, split_times, stage_by_time


def test_tuning_takes_the_best_setting_of_the_tuning_stage_and_learns_from_the_final_one(tmp_path: Path) -> None:
    rows = order("a", 0, 1) + order("a", 1, 1) + order("b", 4, 2) + order("c", 5, 2) + order("d", 6, 2)
    tuning, final = stage_of(tmp_path / "tuning", rows, 5), stage_of(tmp_path / "final", rows, 6)
    popularity = Baseline(
        name="popularity", fit=fit_popularity, grid=settings(half_life_days=[FOREVER_DAYS, 1.0], unused=[0.0])
    )
    assert tune(popularity, tuning)["half_life_days"] == 1.0
    scorer, setting = fit_tuned(popularity, tuning, final)
    assert setting == {"half_life_days": 1.0, "unused": 0.0}
    assert scores_at(scorer, asked(final, "d", 6))[2] == pytest.approx(1.0 + 0.5)
    assert not baseline._kept


def test_the_weight_of_own_items_is_not_tried_where_they_are_masked(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, MANY, 8)
    tried: list[Setting] = []

    def fit(stage: Stage, setting: Setting) -> Scorer:
        tried.append(setting)
        return fit_popularity(stage, {"half_life_days": 30.0})

    grid = crossed(settings(a=[1.0, 2.0]), settings(own=[0.0, 0.5]))
    assert grid[:2] == [{"a": 1.0, "own": 0.0}, {"a": 1.0, "own": 0.5}]
    tune(Baseline(name="any", fit=fit, grid=grid), replace(stage, test=replace(stage.test, seen_masked=True)))
    assert tried == [{"a": 1.0, "own": 0.0}, {"a": 2.0, "own": 0.0}]


def test_tuning_asks_a_sample_of_the_moments(tmp_path: Path) -> None:
    rows = order("a", 0, 1, 2) + [row for day in range(9, 29) for row in order("a", day, *range(1, day % 3 + 2))]
    stage = stage_of(tmp_path, rows, 8)
    sizes: list[int] = []

    def fit(stage: Stage, setting: Setting) -> Scorer:
        test = stage.test
        assert len(test.repeated) == len(test.moments.targets)
        sizes.append(len(test.moments))
        return fit_popularity(stage, {"half_life_days": 30.0})

    tune(Baseline(name="any", fit=fit, grid=settings(a=[1.0, 2.0])), stage, sample=7)
    assert sizes == [7, 7]


def test_what_settings_share_is_learned_once(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, MANY, 8)
    learned: list[float] = []

    @keep_last
    def learn(stage: Stage, ridge: float) -> int:
        learned.append(ridge)
        return len(learned)

    assert [learn(stage, 1.0), learn(stage, 1.0), learn(stage, 2.0), learn(replace(stage), 2.0)] == [1, 1, 2, 3]
    assert learned == [1.0, 2.0, 2.0]


def test_the_cheap_baselines_are_measured(offline: Path) -> None:
    events, moments = read_log(offline)
    validation_from, test_from = split_times(moments, None)
    tuning = stage_by_time(events, moments, validation_from, test_from, Protocol(sample=30))
    final = stage_by_time(events, moments, test_from, END_MS, Protocol(sample=30))
    found = measure_baselines(tuning, final)
    assert list(found) == ["popularity", "personal frequency", "item-kNN", "EASE"]
    assert all(0.0 <= row["ndcg@10"] <= 1.0 for row in found.values())
    assert found["personal frequency"]["ndcg@10"] > found["popularity"]["ndcg@10"]
