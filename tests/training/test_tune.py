"""A search is shared by its workers, survives the death of one, goes on when called again, and gives `train` a file."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from alembic.script import ScriptDirectory
from optuna.trial import FixedTrial, FrozenTrial, TrialState
from sqlalchemy import inspect, text
from typer.testing import CliRunner, Result

from features.database.engine import MIGRATIONS, open_database
from features.settings import Settings
from tests.conditions import eventually
from tests.conftest import NewSettings
from training.__main__ import app
from training.config import Config, FitConfig, ModelConfig
from training.configuration_file import read_configuration, write_configuration
from training.dataset import DataError, read_log
from training.evaluate import Protocol
from training.search_space import FIT, MODEL, Sampler, searched, suggest
from training.search_workers import FULL_TRIALS, Task, work
from training.studies import open_study, opened_storage
from training.trained import load_trained
from training.tune import Budget, Found, configuration_path, found_table, tune, validation_stage


def quick_fit(stage: Any, final: Any, config: Config, *, folder: Path, watch: Callable[[int, float], None]) -> Any:
    """In place of an hour's fitting: less dropout is better, and nothing else matters."""
    figure = 1.0 - config.model.dropout
    watch(1, figure)
    return SimpleNamespace(best=figure)


def meeting_fit(*given: Any, **named: Any) -> Any:
    """Ends only when two processes have begun a trial."""
    met = Path(os.environ["BRAID_TEST_MET"])
    (met / str(os.getpid())).touch()
    eventually(lambda: len(list(met.iterdir())) == 2, within_s=60, what="a trial in the second worker")
    return quick_fit(*given, **named)


def deadly_fit(*given: Any, **named: Any) -> Any:
    """Kills its process, once it has given a sign of life."""

    def beats() -> int:
        with opened_storage(os.environ["BRAID_TEST_DATABASE"]) as storage, storage.engine.begin() as connection:
            return int(connection.scalar(text("SELECT count(*) FROM trial_heartbeats")) or 0)

    eventually(beats, what="a heartbeat")
    os.kill(os.getpid(), signal.SIGKILL)


def search(settings: Settings, offline: Path, fit_model: Callable[..., Any], *, trials: int, workers: int = 1) -> Found:
    budget = Budget(trials=trials, minutes=5, epochs=2, workers=workers, threads=1)
    return tune(settings, offline, budget, Protocol(), sampler=Sampler.RANDOM, study_name="s", fit_model=fit_model)


def a_task(settings: Settings, offline: Path, fit_model: Callable[..., Any], **changes: Any) -> Task:
    """What `search` would give its workers, for `work` in this process."""
    stage, exam = validation_stage(*read_log(offline), Protocol(), None)
    with opened_storage(settings.log_url) as storage:
        study = open_study(storage, "s", exam | {"epochs": 2}, searched(Config()))
        drawn = len(study.get_trials())
    task = Task(
        log_url=settings.log_url,
        study="s",
        stage=stage,
        base=Config(),
        fit=fit_model,
        sampler=Sampler.TPE,
        drawn=drawn,
        threads=1,
        deadline_s=time.monotonic() + 60,
    )
    return replace(task, **changes)


def newest_migration() -> str | None:
    """The revision of this version's tables."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()


def trials_of(settings: Settings) -> list[FrozenTrial]:
    with opened_storage(settings.log_url) as storage:
        return optuna.load_study(study_name="s", storage=storage).get_trials()


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def shop(new_settings: NewSettings, database_url: str) -> Settings:
    """A shop on SQLite, and one on PostgreSQL."""
    return new_settings(database_url=database_url)


def test_the_search_space_names_settings_and_holds_the_usual_ones() -> None:
    assert set(MODEL) <= {field.name for field in fields(ModelConfig)}
    assert set(FIT) <= {field.name for field in fields(FitConfig)}
    assert suggest(FixedTrial(searched(Config())), Config()) == Config()  # a value outside would warn, and so fail


def test_every_corner_of_the_search_space_is_a_valid_configuration() -> None:
    lows, highs = {}, {}
    for name, choice in (MODEL | FIT).items():
        values = getattr(choice, "values", None)
        lows[name], highs[name] = (values[0], values[-1]) if values else (choice.low, choice.high)
    for corner in (lows, highs):
        assert searched(suggest(FixedTrial(corner), Config())) == corner


def test_the_best_configuration_is_written_and_training_takes_it(
    offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAID_HOME", str(tmp_path))
    tuned = call("tune", "--trials", "2", "--epochs", "1", "--threads", "1", "--data", str(offline))
    assert tuned.exit_code == 0, tuned.output
    assert "2 finished" in tuned.output
    file = tmp_path / "training" / "configuration.json"
    best = read_configuration(file)
    assert (best.fit.epochs, best.fit.max_minutes) == (1, Config().fit.max_minutes)
    (tmp_path / "offline").symlink_to(offline)
    trained = call("train", "--configuration", str(file), "--seed", "5", "--threads", "1")
    assert trained.exit_code == 0, trained.output
    assert load_trained(tmp_path / "training").config == replace(best, fit=replace(best.fit, seed=5))


def test_a_second_call_goes_on_and_the_shops_own_tables_stay_as_they_are(shop: Settings, offline: Path) -> None:
    open_database(shop.log_url).dispose()
    work(a_task(shop, offline, quick_fit), 1, multiprocessing.Semaphore(2))
    found = search(shop, offline, quick_fit, trials=18)
    trials = trials_of(shop)
    assert [(trial.number, trial.state) for trial in trials] == [(n, TrialState.COMPLETE) for n in range(20)]
    assert trials[0].params == searched(Config())
    assert len({trial.params["dropout"] for trial in trials}) == 20
    assert found.config.model.dropout == min(trial.params["dropout"] for trial in trials)
    assert read_configuration(configuration_path(shop)) == found.config
    engine = open_database(shop.log_url)  # migrates, and so reads our own alembic_version
    with engine.connect() as connection:
        assert connection.scalars(text("SELECT version_num FROM alembic_version")).all() == [newest_migration()]
        assert "studies" not in inspect(connection).get_table_names()
    engine.dispose()
    assert max(found.importances, key=lambda name: found.importances[name]) == "dropout"
    assert sum(found.importances.values()) == pytest.approx(1.0)
    table = found_table(found)
    headings = [str(column.header) for column in table.columns]
    assert headings == ["", "usual", *(f"trial {trial.number}" for trial in found.best[:4]), "importance"]
    assert list(table.columns[0].cells)[:2] == ["NDCG@10", "dropout"]


def test_two_workers_share_a_study_without_a_double(
    settings: Settings, offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met = tmp_path / "met"
    met.mkdir()
    monkeypatch.setenv("BRAID_TEST_MET", str(met))
    search(settings, offline, meeting_fit, trials=6, workers=2)
    trials = trials_of(settings)
    assert [(trial.number, trial.state) for trial in trials] == [(n, TrialState.COMPLETE) for n in range(6)]
    assert len({trial.params["dropout"] for trial in trials}) == 6


def test_a_trial_whose_worker_was_killed_is_failed_and_tried_again(
    shop: Settings, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAID_TEST_DATABASE", shop.log_url)
    with pytest.raises(DataError, match=r"no trial came to its end.*tune-\*\.log"):
        search(shop, offline, deadly_fit, trials=1)
    assert [trial.state for trial in trials_of(shop)] == [TrialState.RUNNING]
    with opened_storage(shop.log_url) as storage, storage.engine.begin() as connection:
        connection.execute(text("UPDATE trial_heartbeats SET heartbeat = '2026-01-01 00:00:00'"))
    work(a_task(shop, offline, quick_fit), 1, multiprocessing.Semaphore(1))
    killed, again = trials_of(shop)
    assert (killed.state, again.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert again.params == killed.params == searched(Config())


def test_the_test_moments_are_neither_learned_from_nor_asked(offline: Path) -> None:
    log, moments = read_log(offline)
    stage, exam = validation_stage(log, moments, Protocol(), None)
    test_from_ms = moments.times_ms[moments.times_ms < stage.test.moments.times_ms.max()].max()
    assert len(stage.moments) and len(stage.test.moments)
    assert stage.moments.times_ms.max() < stage.test.moments.times_ms.min()
    assert stage.test.moments.times_ms.max() < moments.times_ms.max()
    assert log.times_ms[stage.learn].max() < stage.test.moments.times_ms.min() <= test_from_ms
    assert exam["validation_from"] < exam["test_from"]


def test_a_trial_below_the_median_is_stopped_early(settings: Settings, offline: Path) -> None:
    figures = [0.2] * FULL_TRIALS + [0.1, 0.3]
    seen = []

    def fit(stage: Any, final: Any, config: Config, *, folder: Path, watch: Callable[[int, float], None]) -> Any:
        figure = figures[len(seen)]
        seen.append(0)
        for epoch in (1, 2, 3):
            seen[-1] = epoch
            watch(epoch, figure)
        return SimpleNamespace(best=figure)

    work(a_task(settings, offline, fit), 1, multiprocessing.Semaphore(len(figures)))
    assert seen == [3] * FULL_TRIALS + [2, 3]
    states = [trial.state for trial in trials_of(settings)]
    assert states == [TrialState.COMPLETE] * FULL_TRIALS + [TrialState.PRUNED, TrialState.COMPLETE]


def test_a_configuration_that_fails_does_not_end_the_search(settings: Settings, offline: Path) -> None:
    calls = []

    def fit(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        return quick_fit(*given, **named)

    work(a_task(settings, offline, fit), 1, multiprocessing.Semaphore(2))
    assert [trial.state for trial in trials_of(settings)] == [TrialState.FAIL, TrialState.COMPLETE]


def test_no_trial_is_begun_after_the_deadline(settings: Settings, offline: Path) -> None:
    task = a_task(settings, offline, quick_fit, deadline_s=time.monotonic())
    tickets = multiprocessing.Semaphore(1)
    work(task, 1, tickets)
    assert [trial.state for trial in trials_of(settings)] == [TrialState.WAITING]
    assert tickets.acquire(block=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "0"], "--trials"),
        (["--workers", "0"], "--workers"),
        (["--sampler", "grid"], "grid"),
        (["--test-from", "soon"], "--test-from 'soon' is no date"),
        (["--test-from", "1999-01-01"], "nothing to validate on"),
        (["--data", "nowhere"], "run `python -m features build` first"),
    ],
)
def test_a_bad_option_is_one_line(
    offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("BRAID_HOME", str(tmp_path))
    (tmp_path / "offline").symlink_to(offline)
    result = call("tune", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def changed(part: str, name: str, value: Any) -> str:
    values = Config().to_dict()
    values[part][name] = value
    return json.dumps(values)


def without(part: str, name: str) -> str:
    values = Config().to_dict()
    del values[part][name]
    return json.dumps(values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "model: expected an object"),
        ('{"model": 3}', "model: expected an object"),
        (changed("model", "depth", 3), "model.depth: unknown"),
        (without("fit", "learning_rate"), "fit.learning_rate: missing"),
        (changed("model", "dim", "64"), "model.dim='64': expected a whole number"),
        (changed("model", "dim", True), "model.dim=True: expected a whole number"),
        (changed("model", "dim", 9), "model.dim=9: at least 8"),
        (changed("model", "heads", 0), "model.heads=0: above 0"),
        (changed("model", "encoder", "rnn"), "model.encoder='rnn': one of transformer"),
        (changed("fit", "learning_rate", 0), "fit.learning_rate=0: above 0"),
        (changed("fit", "weight_decay", -1e-4), "fit.weight_decay=-0.0001: 0 or more"),
        (changed("fit", "half_life_days", float("nan")), "fit.half_life_days=nan: above 0"),
        (changed("fit", "drop_ids", 1.5), "fit.drop_ids=1.5: 0 or more and below 1"),
    ],
)
def test_a_damaged_configuration_is_one_line_that_names_file_and_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, message: str
) -> None:
    monkeypatch.setenv("BRAID_HOME", str(tmp_path))
    file = tmp_path / "c.json"
    file.write_text(content)
    result = call("train", "--configuration", str(file))
    assert result.exit_code == 2
    assert f"error: {file}" in result.output
    assert message in result.output
    assert len(result.output.splitlines()) == 1


def test_a_configuration_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone.json: No such file.*training tune"):
        read_configuration(tmp_path / "gone.json")


def test_a_configuration_from_before_a_field_means_what_it_meant(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    for field in ("drop_transitions", "own_items_loss"):
        file.write_text(without("fit", field))
        assert read_configuration(file) == Config(fit=FitConfig(**{field: 0.0}))  # type: ignore[arg-type]
    file.write_text(without("model", "covisitation"))
    assert read_configuration(file) == Config()


def test_a_whole_number_stands_for_a_number_in_a_configuration_file(tmp_path: Path) -> None:
    config = Config(fit=FitConfig(half_life_days=30.0))
    write_configuration(tmp_path / "c.json", config)
    (tmp_path / "c.json").write_text((tmp_path / "c.json").read_text().replace("30.0", "30"))
    assert read_configuration(tmp_path / "c.json") == config
