"""Shops at the edge: one item, one shopper, no test moment, a shopper with very many events."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from features.inputs.codes import shopper_codes
from features.inputs.content import content_codes
from features.locks import file_locked
from features.schema import EventType
from tests.training.conftest import SMALL
from tests.training.shops import DAY_MS, MINUTE_MS, START_MS, Row, catalogue, visits, write_shop
from training.cooccurrence import cooccurrence_vectors
from training.dataset import DataError, read_log
from training.evaluate import Protocol
from training.gate import check_candidate
from training.moments import MAX_MOMENTS
from training.pipeline import train
from training.publish import write_candidate
from training.trained import TrainedModel

PURCHASE, VIEW = EventType.PURCHASE, EventType.VIEW


def orders(shopper: str, days: int, items: int) -> list[Row]:
    return [
        (f"u:{shopper}", f"i{day % items:03d}", PURCHASE, START_MS + day * DAY_MS, f"{shopper}{day}", None)
        for day in range(days)
    ]


@pytest.mark.parametrize(
    ("rows", "items"),
    [
        (orders("a", 30, 1) + orders("b", 30, 1), 1),
        (orders("a", 30, 5), 5),
        (orders("a", 1, 1), 40),
        ([("s:x", "i000", VIEW, START_MS, None, "x")], 3),
    ],
    ids=["one item", "one shopper", "one event", "one view"],
)
def test_a_tiny_shop_trains_and_passes_the_gate(tmp_path: Path, rows: list[Row], items: int) -> None:
    offline = write_shop(tmp_path / "offline", rows, catalogue(items))
    trained = train(offline, tmp_path / "run", SMALL, Protocol(), test_from_ms=None, resume=False)
    write_candidate(trained, 1, tmp_path / "candidate")
    check_candidate(trained, tmp_path / "candidate" / "fusion", tmp_path / "candidate" / "item_tower")


@pytest.mark.parametrize(("name", "remedy"), [("items", "section items to the mapping"), ("events", "import some")])
def test_a_shop_without_items_or_events_says_what_is_missing(tmp_path: Path, name: str, remedy: str) -> None:
    offline = write_shop(tmp_path / "offline", visits(shoppers=2))
    file = offline / f"{name}.parquet"
    pl.read_parquet(file).clear().write_parquet(file)
    with pytest.raises(DataError, match=f"no {name}.*{remedy}"):
        read_log(offline)


def test_a_catalogue_of_other_ids_than_the_events_is_told(tmp_path: Path) -> None:
    others = catalogue(2).with_columns(item_id=pl.Series(["0001", "0002"]))
    offline = write_shop(tmp_path / "offline", visits(shoppers=2), others)
    with pytest.raises(DataError, match=r"none of \d+ events .* like '0001', those of the events like 'i\d+'"):
        read_log(offline)
    assert len(read_log(offline, catalogue=others)[1]) == 0  # of a release that is examined after the items changed


def test_two_trainings_do_not_write_into_one_folder(tmp_path: Path) -> None:
    offline, run = write_shop(tmp_path / "offline", visits(shoppers=5), catalogue(5)), tmp_path / "run"
    run.mkdir()
    with (
        file_locked(run / "run.lock"),
        pytest.raises(DataError, match=f"another training writes into {run}; .* with --run"),
    ):
        train(offline, run, SMALL, Protocol(), test_from_ms=None, resume=False)
    assert [path.name for path in run.iterdir()] == ["run.lock"]
    train(offline, run, SMALL, Protocol(), test_from_ms=None, resume=False)


def at_one_time(shoppers: int) -> list[Row]:
    """All that happened, happened in one millisecond."""
    return [(f"u:{at}", f"i{item:03d}", VIEW, START_MS, None, f"s{at}") for at in range(shoppers) for item in range(6)]


def with_single_events() -> list[Row]:
    """Half the shoppers looked once and never came back."""
    return visits(shoppers=10) + [
        (f"u:once{at}", f"i{at:03d}", VIEW, START_MS + at, None, f"x{at}") for at in range(10)
    ]


def odd_catalogue() -> pl.DataFrame:
    """One item is alone in its category, brand and attribute; others lack everything but their id."""
    items = catalogue()
    alone, bare = pl.col("item_id") == "i000", pl.col("item_id").is_in(["i001", "i002"])
    lonely = pl.lit(["Garden", "Gnomes"])
    return items.with_columns(
        title=pl.when(bare).then(None).otherwise("title"),
        category_path=pl.when(alone)
        .then(lonely)
        .when(bare)
        .then(pl.lit([], pl.List(pl.String)))
        .otherwise("category_path"),
        brand=pl.when(alone).then(pl.lit("Gnomes and sons")).when(bare).then(None).otherwise("brand"),
        price=pl.when(bare).then(None).otherwise("price"),
    )


@pytest.mark.parametrize(
    ("rows", "items"),
    [(at_one_time(20), catalogue()), (with_single_events(), catalogue()), (visits(shoppers=20), odd_catalogue())],
    ids=["all ties in time", "shoppers with one event", "a category with one item, items without attributes"],
)
def test_faults_of_data_are_ordinary(tmp_path: Path, rows: list[Row], items: pl.DataFrame) -> None:
    offline = write_shop(tmp_path / "offline", rows, items)
    trained = train(offline, tmp_path / "run", SMALL, Protocol(), test_from_ms=None, resume=False)
    assert all(torch.isfinite(weight).all() for weight in trained.model.parameters())
    write_candidate(trained, 1, tmp_path / "candidate")
    check_candidate(trained, tmp_path / "candidate" / "fusion", tmp_path / "candidate" / "item_tower")


def test_attributes_that_training_never_saw_are_unknown_ones(trained: TrainedModel) -> None:
    """A shopper, a context and an item made of unknown values get the answer of one that says nothing."""
    codes = shopper_codes([20], ["never seen"], ["ZZ"], trained.codes)
    assert codes.tolist() == shopper_codes([20], [None], [None], trained.codes).tolist()
    unseen = catalogue(1).with_columns(
        category_path=pl.lit(["Attic"]), brand=pl.lit("Nobody"), attributes=pl.lit(["size=9"]), title=pl.lit("Zyx")
    )
    with torch.inference_mode():
        vector, bias = trained.model.tower.of_content(torch.from_numpy(content_codes(unseen, trained.content)))
    assert torch.isfinite(vector).all()
    assert torch.isfinite(bias).all()


def test_without_a_test_moment_there_are_no_figures_and_still_a_model(offline: Path, tmp_path: Path) -> None:
    trained = train(offline, tmp_path, SMALL, Protocol(), test_from_ms=START_MS + 999 * DAY_MS, resume=False)
    assert trained.report["metrics"] == {"moments": 0.0}
    assert "| fusion | - | - |" in (tmp_path / "evaluation.md").read_text()


def test_one_shopper_with_very_many_events_is_cut_to_the_newest_moments(tmp_path: Path) -> None:
    rows: list[Row] = [
        ("u:a", f"i{at % 40:03d}", PURCHASE, START_MS + at * MINUTE_MS, f"o{at}", None) for at in range(5000)
    ]
    log, moments = read_log(write_shop(tmp_path, rows))
    assert (len(log.items), len(moments)) == (5000, MAX_MOMENTS)
    assert moments.times_ms.min() == log.times_ms[5000 - MAX_MOMENTS]


def test_items_of_the_same_visits_start_near_each_other(offline: Path) -> None:
    log, _ = read_log(offline)
    vectors = cooccurrence_vectors(log, np.ones(len(log.items), bool), 16)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    same = np.arange(40)[:, None] % 4 == np.arange(40)[None, :] % 4
    alike = unit @ unit.T
    assert alike[same & ~np.eye(40, dtype=bool)].mean() > alike[~same].mean() + 0.3
    assert np.array_equal(vectors, cooccurrence_vectors(log, np.ones(len(log.items), bool), 16))
