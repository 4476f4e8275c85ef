"""A run: what is kept, what is done again, and what it writes, on a small shop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.configurations import CONFIGURATIONS, configuration
from benchmarks.quality.folders import SplitBy, open_task
from benchmarks.quality.gate_report import gate_report, kept_model, report_tables, write_report
from benchmarks.quality.gate_signals import days_away, hours_since, likeness, signal, visit_events
from benchmarks.quality.measured import compare, measure_models
from benchmarks.quality.plots import write_plots
from benchmarks.quality.results import Job, load
from benchmarks.quality.tables import tables, write
from benchmarks.quality.task import Task
from benchmarks.quality.variants import (
    ABLATIONS,
    FUSED,
    GROUPS,
    LONG_ONLY,
    OURS,
    PEER,
    PEERS,
    SHORT_ONLY,
    VARIANTS,
    UnknownModel,
    chosen,
)
from benchmarks.quality.worker import BenchError, result_of, work
from tests.benchmarks.made_up import movielens_folder
from tests.training.shops import visits, write_shop
from training.config import Config, ModelConfig

USERS = [[1 + (user + 3 * place) % 12 for place in range(8)] for user in range(12)]


def job_of(folder: Path, cache: Path, task: Task, model: str, seed: int = 0) -> Job:
    return Job(
        data=str(folder),
        split_by=SplitBy.LEAVE_ONE_OUT,
        cache=cache,
        task=task.name,
        model=model,
        seed=seed,
        device="cpu",
    )


def opened(folder: Path, cache: Path) -> Task:
    return open_task(str(folder), SplitBy.LEAVE_ONE_OUT, cache)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Task]:
    """The folder of a small shop, a cache in which three models are measured, and the task."""
    folder, cache = tmp_path_factory.mktemp("shop"), tmp_path_factory.mktemp("cache")
    write_shop(folder, visits())
    task = opened(folder, cache)
    for model in ("popularity", "item-kNN", FUSED):
        work(job_of(folder, cache, task, model))
    return folder, cache, task


def test_a_finished_model_is_not_run_again(tmp_path: Path) -> None:
    folder = movielens_folder(tmp_path / "data", USERS)
    task = opened(folder, tmp_path)
    job = job_of(folder, tmp_path, task, "popularity")
    path = job.path(task)
    assert load(path) is None
    first = result_of(job, task)
    assert first.answers.ranked.shape == (12, 12) and first.facts["peak_bytes"] > 1e6
    path.write_text(json.dumps(first.facts | {"seconds": 12345.0}))
    assert result_of(job, task).facts["seconds"] == 12345.0
    path.unlink()
    assert path.with_suffix(".npz").exists() and load(path) is None, "stopped between the two files: not whole"


def test_other_data_another_seed_or_another_configuration_is_another_result(tmp_path: Path) -> None:
    folder = movielens_folder(tmp_path, USERS)
    task = opened(folder, tmp_path)
    paths = {job_of(folder, tmp_path, task, model).path(task) for model in ("popularity", *PEERS, *VARIANTS)}
    paths |= {job_of(folder, tmp_path, task, model, seed=1).path(task) for model in (PEER, FUSED)}
    larger = opened(movielens_folder(tmp_path, [*USERS, [1, 2, 3, 4]]), tmp_path)
    paths.add(job_of(folder, tmp_path, larger, FUSED).path(larger))
    same = (
        "gate fusion",
        "Transformer encoder",
        "no content",
        "no time",
        "no repeat term",
        "transition term",
        "no co-visitation",
    )  # as MovieLens has it anyway
    assert len(paths) == 1 + len(PEERS) + len(VARIANTS) - len(same) + 3


def test_a_process_that_fails_names_its_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = movielens_folder(tmp_path / "data", USERS)
    task = opened(folder, tmp_path)
    job = job_of(folder, tmp_path, task, "popularity")
    held = job.path(task)
    (folder / "ml-1m.txt.gz").write_text("damaged")
    with pytest.raises(BenchError, match="popularity, seed 0"):
        # the files are read again by the process, whose result is asked for under the old name
        result_of(job, task)
    assert not held.exists()
    assert "ml-1m.txt.gz is damaged" in capfd.readouterr().err


def test_a_run_writes_tables_and_plots_of_every_model(shop: tuple[Path, Path, Task], tmp_path: Path) -> None:
    folder, cache, task = shop
    measured = measure_models(
        task,
        ["popularity", "item-kNN", FUSED],
        seeds=1,
        data=str(folder),
        split_by=SplitBy.LEAVE_ONE_OUT,
        device="cpu",
        cache=cache,
    )
    compared = compare(task, measured)
    best = max(measured[:2], key=lambda model: model.mean["ndcg@10"])
    assert [(row.model, row.other) for row in compared] == [(FUSED, best.name)]
    found = compared[0].difference
    assert found.value == pytest.approx(measured[2].mean["ndcg@10"] - best.mean["ndcg@10"])
    assert found.low <= found.value <= found.high
    write(tmp_path, task, measured, compared)
    write_plots(tmp_path, task, measured)
    values = json.loads((tmp_path / "results.json").read_text())
    assert list(values["models"]) == ["popularity", "item-kNN", FUSED]
    assert values["models"][FUSED]["facts"][0]["parameters"] > 1000
    assert 0 <= values["models"][FUSED]["mean"]["calibration_error"] <= 1
    text = (tmp_path / "results.md").read_text()
    assert all(f"| {model.name} | {model.mean['recall@10']:.4f}" in text for model in measured)
    assert len(tables(task, measured, compared)) == 5
    for name in ("accuracy", "history", "coverage", "reliability"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_gate_is_reported_from_the_kept_model(shop: tuple[Path, Path, Task], tmp_path: Path) -> None:
    folder, cache, task = shop
    job = job_of(folder, cache, task, FUSED)
    signals, accuracy = gate_report(task, kept_model(task, job), "cpu")
    assert list(accuracy) == ["0", "0.5", "1", "free"]
    assert load(job.path(task)) is not None
    measured = measure_models(
        task, [FUSED], seeds=1, data=str(folder), split_by=SplitBy.LEAVE_ONE_OUT, device="cpu", cache=cache
    )
    assert accuracy["free"] == pytest.approx(measured[0].mean["ndcg@10"])
    assert len(signals) == 4 and all(0 < weight < 1 for part in signals for weight in part.weights)
    write_report(tmp_path, task, signals, accuracy)
    assert (tmp_path / "gate.png").read_bytes().startswith(b"\x89PNG")
    assert len(report_tables(task, signals, accuracy)) == 5


def test_properties_of_a_moment_by_hand(tmp_path: Path) -> None:
    task = opened(movielens_folder(tmp_path, [[*range(1, 14)], [1, 2, 3]]), tmp_path)
    moments = task.final.test.moments
    assert moments.shoppers.tolist() == [0, 1]
    assert hours_since(task.log, moments).tolist() == [24.0, 24.0]
    assert visit_events(task.log, moments).tolist() == [2.0, 2.0]  # ten events are a visit, then two; and two
    assert days_away(task.log, moments)[0] == 1.0 and np.isnan(days_away(task.log, moments)[1])
    vectors = np.zeros((13, 2), np.float32)
    vectors[:2] = [[3, 0], [0, 2]]
    vectors[2:] = [1, 1]
    # of the first user's last ten items all are alike; of the second's two none
    assert likeness(task.log, moments, vectors) == pytest.approx([1.0, 0.0], abs=1e-5)


def test_a_signal_that_goes_with_the_weight_is_seen_to() -> None:
    values = np.random.default_rng(0).normal(size=300)
    rising = signal("rising", values, np.exp(values), np.arange(300))
    assert rising.correlation.value == pytest.approx(1.0)
    assert rising.weights == sorted(rising.weights) and sum(rising.counts) == 300
    noise = signal("noise", values, np.random.default_rng(1).normal(size=300), np.arange(300))
    assert noise.correlation.low < 0 < noise.correlation.high
    assert signal("some", np.where(values > 0, values, np.nan), values, np.arange(300)).counts != rising.counts


def test_a_variant_changes_one_field_of_the_tasks_configuration() -> None:
    for task in (*CONFIGURATIONS, "a shop"):
        plain = configuration(task).to_dict()
        for name, variant in VARIANTS.items():
            changed = variant(configuration(task)).to_dict()
            assert changed["fit"] == plain["fit"]
            different = [field for field in plain["model"] if changed["model"][field] != plain["model"][field]]
            assert len(different) <= (2 if name == LONG_ONLY and not plain["model"]["long"] else 1), name
            if task == "a shop":  # others may be so already
                same = (FUSED, "Transformer encoder", "gate and mlp fusion", "no transition term", "no co-visitation")
                assert bool(different) == (name not in same), name
    assert Config.from_dict(VARIANTS["no time"](Config()).to_dict()).model.time is False


def test_a_given_configuration_stands_for_the_tasks_own(shop: tuple[Path, Path, Task]) -> None:
    folder, cache, task = shop
    job = job_of(folder, cache, task, SHORT_ONLY)
    given = replace(job, config=Config(model=ModelConfig(dim=32)))
    assert given.identity["configuration"]["model"] == job.identity["configuration"]["model"] | {"dim": 32}
    assert given.path(task) != job.path(task)


def test_the_peer_has_our_epochs_and_our_size_or_all_that_help_it(tmp_path: Path) -> None:
    task = opened(movielens_folder(tmp_path, USERS), tmp_path)
    equal, converged = (job_of(tmp_path, tmp_path, task, model).identity["peer"] for model in PEERS)
    ours = configuration("ml-1m")
    assert (equal["epochs"], equal["dim"]) == (ours.fit.epochs, ours.model.dim)
    assert converged == equal | {"epochs": 100}


def test_models_are_chosen_by_group_and_by_name() -> None:
    assert chosen("peer") == chosen("rectools-sasrec,rectools-sasrec-converged") == [*PEERS]
    assert chosen("ours,ablations") == [*OURS, *ABLATIONS]
    assert chosen("No-Time, fused,popularity,ours") == ["no time", FUSED, "popularity", LONG_ONLY, SHORT_ONLY]
    assert set(GROUPS["baselines"]).isdisjoint(VARIANTS)
    with pytest.raises(UnknownModel, match="'nonsense' is not known; groups are baselines, ours, ablations, peer"):
        chosen("fused,nonsense")


def test_the_kept_folder_holds_no_leftovers(shop: tuple[Path, Path, Task]) -> None:
    _, cache, task = shop
    names = {path.suffix for path in (cache / task.name / "answers").iterdir()}
    assert names == {".json", ".npz", ".pt"}
