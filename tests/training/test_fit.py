"""Equal seeds give equal models, and a run that was interrupted ends where one that was not would have."""

import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from tests.training.conftest import SMALL
from tests.training.shops import ITEMS, START_MS, Row, catalogue, visits, write_shop
from training.config import Config, FitConfig, ModelConfig
from training.dataset import DataError, read_log
from training.evaluate import Protocol, split_times
from training.fit import Fitted, Watch, fit
from training.pipeline import Split, stages


def fit_on(offline: Path, folder: Path, config: Config, *, resume: bool = False, watch: Watch | None = None) -> Fitted:
    log, moments = read_log(offline)
    tuning, final = stages(log, moments, Split(*split_times(moments, None)), Protocol())
    return fit(tuning, final, config, folder=folder, resume=resume, watch=watch)


def weights(fitted: Fitted) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in fitted.model.parameters()])


def retitled() -> pl.DataFrame:
    """The catalogue with one item under another title."""
    first = pl.col("item_id") == "i000"
    return catalogue().with_columns(title=pl.when(first).then(pl.lit("Something else")).otherwise("title"))


def with_fit(**changes: int) -> Config:
    return replace(SMALL, fit=replace(SMALL.fit, **changes))


def test_the_same_seed_gives_the_same_model_and_another_seed_another(offline: Path, tmp_path: Path) -> None:
    first, again, other = (
        weights(fit_on(offline, tmp_path / str(run), with_fit(epochs=1, seed=seed)))
        for run, seed in enumerate((3, 3, 4))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(offline: Path, tmp_path: Path) -> None:
    whole = fit_on(offline, tmp_path / "whole", with_fit(epochs=2, final_epochs=0))
    cut = replace(SMALL, fit=replace(SMALL.fit, epochs=2, final_epochs=0, max_minutes=0.0))
    assert len(fit_on(offline, tmp_path / "cut", cut).history) == 1
    resumed = fit_on(offline, tmp_path / "cut", with_fit(epochs=2, final_epochs=0), resume=True)
    assert torch.equal(weights(whole), weights(resumed))
    assert [row["epoch"] for row in resumed.history] == [1, 2]


def test_a_disk_that_fills_up_is_said_and_leaves_the_last_checkpoint_whole(offline: Path, tmp_path: Path) -> None:
    once = replace(SMALL, fit=replace(SMALL.fit, epochs=2, max_minutes=0.0))
    fit_on(offline, tmp_path, once)
    checkpoint = tmp_path / "checkpoint.pt"
    before = checkpoint.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(OSError, match=r"File too large.*checkpoint\.pt"):
            fit_on(offline, tmp_path, with_fit(epochs=2), resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.read_bytes() == before
    assert not checkpoint.with_name("checkpoint.pt.part").exists()


@pytest.mark.parametrize(
    ("build", "config", "differ"),
    [
        (lambda at: write_shop(at, visits(), catalogue(ITEMS + 1)), with_fit(epochs=2), "items"),
        (lambda at: write_shop(at, visits(), retitled()), with_fit(epochs=2), "items"),
        (lambda at: write_shop(at, visits(days=50)), with_fit(epochs=2), "moments to learn from"),
        (lambda at: write_shop(at, visits()), with_fit(epochs=3), "configuration"),
    ],
    ids=["an item more", "another title", "other events", "more epochs"],
)
def test_a_run_does_not_go_on_over_other_data_or_with_another_configuration(
    offline: Path, tmp_path: Path, build: Callable[[Path], Path], config: Config, differ: str
) -> None:
    cut = replace(SMALL, fit=replace(SMALL.fit, epochs=2, max_minutes=0.0))
    fit_on(offline, tmp_path / "run", cut)
    with pytest.raises(DataError, match=rf"of another run: .*{differ}.* differ.*train without --resume"):
        fit_on(build(tmp_path / "built again"), tmp_path / "run", config, resume=True)


def test_fitting_lowers_the_loss_and_writes_a_tensorboard_log(offline: Path, tmp_path: Path) -> None:
    fitted = fit_on(offline, tmp_path, with_fit(epochs=3))
    losses = [row["loss"] for row in fitted.history]
    assert losses[-1] < losses[0]
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_fitting_stops_when_validation_no_longer_improves(offline: Path, tmp_path: Path) -> None:
    config = replace(SMALL, fit=replace(SMALL.fit, epochs=30, patience=1, learning_rate=0.2, final_epochs=0))
    assert len(fit_on(offline, tmp_path, config).history) < 30


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": "gru"},
        {"encoder": "lstm", "short_layers": 1},
        {"fusion": "concat"},
        {"fusion": "attention"},
        {"long": False},
        {"short": False},
        {"content": False, "time": False, "repeat": False, "transitions": False},
        {"transitions": False},
    ],
    ids=str,
)
def test_every_variant_is_configuration_alone_and_learns(
    offline: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = replace(with_fit(epochs=3, final_epochs=0), model=replace(SMALL.model, **changes))
    fitted = fit_on(offline, tmp_path, config)
    losses = [row["loss"] for row in fitted.history]
    assert losses[-1] < losses[0]
    assert fitted.best > 0


def test_a_second_loss_among_own_items_is_added_for_models_that_have_terms_for_them(
    offline: Path, tmp_path: Path
) -> None:
    def first_loss(name: str, *, repeat: bool, own_items_loss: float) -> float:
        config = Config(
            model=replace(SMALL.model, repeat=repeat),
            fit=replace(SMALL.fit, epochs=1, final_epochs=0, own_items_loss=own_items_loss),
        )
        return float(fit_on(offline, tmp_path / name, config).history[0]["loss"])

    assert first_loss("both", repeat=True, own_items_loss=1.0) > first_loss("one", repeat=True, own_items_loss=0.0)
    assert first_loss("no term", repeat=False, own_items_loss=1.0) == first_loss(
        "one", repeat=False, own_items_loss=0.0
    )


def test_a_refit_is_a_new_model_of_validation_moments_as_well(offline: Path, tmp_path: Path) -> None:
    log, moments = read_log(offline)
    tuning, final = stages(log, moments, Split(*split_times(moments, None)), Protocol())
    config = replace(with_fit(epochs=1, refit=True), model=replace(SMALL.model, transitions=False))
    refitted = fit(tuning, final, config, folder=tmp_path / "refitted")
    assert torch.equal(weights(refitted), weights(fit(final, None, config, folder=tmp_path / "at once")))
    assert not torch.equal(refitted.model.tower.ids.weight, refitted.held_out.tower.ids.weight)


def test_a_refit_keeps_its_trust_in_companions_and_counts_them_anew(offline: Path, tmp_path: Path) -> None:
    config = replace(with_fit(epochs=1, refit=True), model=replace(SMALL.model, covisitation=True))
    fitted = fit_on(offline, tmp_path, config)
    first, then = fitted.held_out.covisitation, fitted.model.covisitation
    assert torch.equal(first.powers, then.powers)
    assert first.counts.sum() < then.counts.sum()


def test_a_watcher_is_told_of_every_epoch_and_may_end_the_run(offline: Path, tmp_path: Path) -> None:
    told: list[int] = []

    def watch(epoch: int, figure: float) -> None:
        assert 0 <= figure <= 1
        told.append(epoch)
        if epoch == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit_on(offline, tmp_path, with_fit(epochs=5), watch=watch)
    assert told == [1, 2]


@pytest.mark.parametrize("shoppers", [1, 2])
def test_hardly_any_events_are_enough_for_a_model(tmp_path: Path, shoppers: int) -> None:
    rows: list[Row] = [(f"u:{at}", "i001", 4, START_MS + at, f"o{at}", None) for at in range(shoppers)]
    fitted = fit_on(write_shop(tmp_path / "offline", rows), tmp_path / "run", with_fit(epochs=1))
    assert torch.isfinite(weights(fitted)).all()


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="dim=9"):
        ModelConfig(dim=9)
    with pytest.raises(ValueError, match="encoder='cnn': one of transformer, gru, lstm"):
        ModelConfig(encoder="cnn")
    with pytest.raises(ValueError, match="at least one of the strands"):
        ModelConfig(long=False, short=False)
    with pytest.raises(ValueError, match="drop_long"):
        FitConfig(drop_long=1.0)
    with pytest.raises(ValueError, match="heads=0: at least 1"):
        ModelConfig(heads=0)
    with pytest.raises(ValueError, match="learning_rate=0.0: above 0"):
        FitConfig(learning_rate=0.0)
    with pytest.raises(ValueError, match="epochs=0"):
        FitConfig(epochs=0)


def test_a_configuration_survives_its_dictionary() -> None:
    assert Config.from_dict(SMALL.to_dict()) == SMALL
