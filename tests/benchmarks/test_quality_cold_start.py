"""Held-out shoppers are not learned from and meet the model event by event; diversity is measured as it is served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import cold_start, diversity_curve
from benchmarks.quality.cold_start import SEGMENT, measure, table
from benchmarks.quality.folders import SplitBy, open_task
from benchmarks.quality.newcomers import Bools, Newcomers, held_out, without
from benchmarks.quality.task import Task
from benchmarks.quality.variants import FUSED
from tests.training.shops import visits, write_shop
from training.batches import BatchMaker
from training.config import Config
from training.fit import build_model
from training.fusion import FusionModel


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("shop")
    return open_task(str(write_shop(folder / "offline", visits(shoppers=120))), SplitBy.LEAVE_ONE_OUT, folder)


@pytest.fixture(scope="module")
def held(task: Task) -> Bools:
    return held_out(task.log)


@pytest.fixture(scope="module")
def model(task: Task, held: Bools) -> FusionModel:
    """As it is before fitting: what is popular, and what was seen together."""
    return build_model(without(task.final, held), Config())[0].eval()


def test_nothing_of_the_held_out_is_learned(task: Task, held: Bools) -> None:
    assert 0.2 < held.mean() < 0.6
    for stage in (task.tuning, task.final):
        kept = without(stage, held)
        assert not held[task.log.shoppers[kept.learn]].any()
        assert not held[kept.moments.shoppers].any() and not held[kept.test.moments.shoppers].any()
        assert kept.learn.sum() < stage.learn.sum() and len(kept.moments) < len(stage.moments)
        assert len(kept.test.repeated) == len(kept.test.moments.targets)


def test_a_newcomer_is_known_by_the_first_events_of_the_visit_alone(task: Task, held: Bools) -> None:
    newcomers = Newcomers.of(task, held, 3)
    assert len(newcomers.shoppers) and held[newcomers.shoppers].all()
    maker = BatchMaker(newcomers.log)
    for events in range(4):
        moments = newcomers.asked_after(events, task.final).test.moments
        (batch,) = maker.batches(maker.ask(moments), batch_examples=len(moments))
        assert (batch.seen_types > 0).sum(dim=1).tolist() == [events] * len(moments)
    first = task.log.rows_before(newcomers.shoppers, newcomers.times_ms[:, 0])
    assert np.array_equal(newcomers.log.items.reshape(-1, 3)[:, 0], task.log.items[first])
    assert np.array_equal(task.log.visits[first], task.log.visits[first + 2])
    assert (task.log.visits[first] != task.log.visits[np.maximum(first - 1, 0)])[first > 0].all()


def test_methods_are_compared_on_the_same_visits(
    task: Task, held: Bools, model: FusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold_start, "SHOWN", (0, 1, 3))
    lines, count = measure(task, model, held, "cpu")
    assert count == len(Newcomers.of(task, held, 3).shoppers)
    assert len(lines) == 9 == len(table(task, lines, count).rows)
    found = {(line.method, line.events): line for line in lines}
    segment, fused = found[SEGMENT, 1], found[FUSED, 1]
    assert segment.gain is None and fused.gain is not None and fused.step is not None
    assert fused.gain.value == pytest.approx(fused.ndcg - segment.ndcg)
    assert fused.step.value == pytest.approx(fused.ndcg - found[FUSED, 0].ndcg)
    assert segment.ndcg == pytest.approx(found[SEGMENT, 0].ndcg, abs=0.2)
    cold_start.write(tmp_path, task, lines, count)
    assert (tmp_path / "cold_start.png").read_bytes().startswith(b"\x89PNG")


def test_more_diversity_makes_lists_less_alike(task: Task, model: FusionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity_curve, "STEPS", (0.0, 0.5, 1.0))
    plain, some, most = diversity_curve.curve(task, model, "cpu")
    assert plain.vector_diversity < some.vector_diversity <= most.vector_diversity
    assert plain.page_us > 0 and 0 <= plain.ndcg <= 1
