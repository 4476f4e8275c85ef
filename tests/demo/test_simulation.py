"""The simulated shop: the same seed gives the same shop, it behaves like one, and it knows its own truth."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from demo.oracle import Oracle, ndcg
from demo.simulate import EVENT_COLUMNS, ShopPlan, simulate
from features.schema import EVENT_NAMES
from features.settings import ROOT

SMALL = {"shoppers": 600, "items": 400, "days": 90}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    simulate(ShopPlan(**SMALL, seed=3), folder)
    return folder


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("control")
    simulate(ShopPlan(**SMALL, seed=3, intents=False), folder)
    return folder


def _events(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "events.parquet")


def _late(oracle: Oracle) -> pl.DataFrame:
    return oracle.buying_visits().filter(pl.col("day") >= 60)


def test_the_same_plan_gives_the_same_files(shop: Path, tmp_path: Path) -> None:
    simulate(ShopPlan(**SMALL, seed=3), tmp_path)
    for name in ("events", "items", "users", "truth/visits", "truth/needs", "truth/shoppers", "truth/items"):
        assert pl.read_parquet(shop / f"{name}.parquet").equals(pl.read_parquet(tmp_path / f"{name}.parquet")), name


def test_another_seed_gives_another_shop(shop: Path, tmp_path: Path) -> None:
    simulate(ShopPlan(**SMALL, seed=4), tmp_path)
    assert not _events(shop).equals(_events(tmp_path))


def test_events_have_the_columns_and_names_of_the_mapping(shop: Path) -> None:
    events = _events(shop)
    assert dict(events.schema) == EVENT_COLUMNS
    assert set(events["event_type"].unique()) == set(EVENT_NAMES)
    assert events["event_time"].is_sorted()
    searches = events.filter(pl.col("event_type") == "search")
    assert searches["item_id"].null_count() == searches.height and not searches["query"].null_count()


def test_nothing_is_seen_before_its_launch(shop: Path) -> None:
    people = _events(shop).filter(~pl.col("session_id").str.starts_with("robot"))
    launched = people.join(pl.read_parquet(shop / "items.parquet").select("item_id", "launch_time"), on="item_id")
    assert launched.filter(pl.col("event_time") < pl.col("launch_time")).is_empty()
    new = launched["launch_time"] > launched["event_time"].min()
    assert 0.02 < new.mean() < 0.5


def test_titles_are_readable_and_unique(shop: Path) -> None:
    items = pl.read_parquet(shop / "items.parquet")
    assert items["title"].n_unique() == items.height == SMALL["items"]
    assert items["category_path"].str.count_matches(" > ").unique().to_list() == [2]
    assert items["variant_group"].n_unique() < items.height
    assert items["price"].min() > 0


def test_popularity_has_a_long_tail(shop: Path) -> None:
    views = _events(shop).filter(pl.col("event_type") == "view")["item_id"].value_counts()["count"].sort()
    top_tenth = views.tail(SMALL["items"] // 10).sum() / views.sum()
    assert 0.2 < top_tenth < 0.7
    assert views.len() > 0.9 * SMALL["items"]


def test_consumables_are_bought_again_and_lasting_things_are_not(shop: Path) -> None:
    oracle = Oracle(shop)
    bought = oracle.buying_visits().select("user_id", item="bought").explode("item").group_by("user_id", "item").len()
    again = bought.filter(pl.col("len") > 1)
    assert (oracle.catalogue.interval_days[again["item"].to_numpy()] > 0).all()
    assert 0.04 < (again["len"] - 1).sum() / bought["len"].sum() < 0.5


def test_the_log_has_robots_duplicates_broken_rows_and_anonymous_visits(shop: Path) -> None:
    events = _events(shop)
    robots = events.filter(pl.col("session_id").str.starts_with("robot"))
    assert robots.group_by("session_id").len()["len"].min() > 500
    assert events["event_id"].n_unique() < events.height
    assert events.filter(pl.col("user_id").is_null(), pl.col("session_id").is_null()).height > 0
    assert events.filter(pl.col("price") < 0).height > 0
    visits = events.join(robots, on="session_id", how="anti").group_by("session_id").agg(pl.col("user_id").is_null())
    anonymous = visits.select(pl.col("user_id").list.all()).to_series().mean()
    signs_in = visits.select(pl.col("user_id").list.any() & ~pl.col("user_id").list.all()).to_series().mean()
    assert 0.08 < anonymous < 0.25
    assert signs_in > 0.02


def test_what_is_bought_was_not_just_looked_at_and_is_of_the_same_intent(shop: Path) -> None:
    oracle = Oracle(shop)
    rows = oracle.buying_visits().filter("has_intent").explode("bought")
    occasion = oracle.catalogue.occasion[rows["bought"].to_numpy()]
    assert (occasion == rows["intent"].to_numpy()).mean() > 0.7
    assert rows.select(pl.col("viewed").list.contains(pl.col("bought"))).to_series().mean() < 0.1


def test_both_strands_together_beat_each_alone_and_repeats(shop: Path) -> None:
    oracle = Oracle(shop)
    visits = _late(oracle)
    targets = visits["bought"].to_list()
    both = ndcg(oracle.scores(visits), targets).mean()
    taste = ndcg(oracle.scores(visits, know_intent=False), targets).mean()
    intent = ndcg(oracle.scores(visits, know_taste=False), targets).mean()
    assert 0.3 < both < 0.8
    assert both > 1.3 * max(taste, intent)
    assert min(taste, intent) > 0.1


def test_without_intents_taste_explains_what_can_be_explained(control: Path) -> None:
    oracle = Oracle(control)
    visits = _late(oracle)
    targets = visits["bought"].to_list()
    assert not visits["has_intent"].any()
    both = ndcg(oracle.scores(visits), targets).mean()
    taste = ndcg(oracle.scores(visits, know_intent=False), targets).mean()
    assert both < 1.1 * taste  # what was looked at and left is not bought: a little is known beside taste


def test_taste_follows_attributes_in_part(shop: Path) -> None:
    people = pl.read_parquet(shop / "users.parquet").join(
        pl.read_parquet(shop / "truth" / "shoppers.parquet"), on="user_id"
    )
    known = people.drop_nulls("gender")
    taste = known["taste"].to_numpy()
    between = np.linalg.norm(
        taste[known["gender"].to_numpy() == "female"].mean(0) - taste[known["gender"].to_numpy() == "male"].mean(0)
    )
    assert between > 0.3
    assert taste.std(axis=0).min() > 0.2


@pytest.mark.parametrize(("field", "value"), [("shoppers", 0), ("items", 0), ("days", 1)])
def test_a_plan_out_of_bounds_names_the_field(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=field):
        ShopPlan(**{**SMALL, field: value})


def test_the_smallest_shop_can_be_simulated(tmp_path: Path) -> None:
    simulate(ShopPlan(shoppers=1, items=1, days=7, seed=1), tmp_path)
    assert pl.read_parquet(tmp_path / "users.parquet").height == 1


def test_perfect_and_missed_rankings_have_the_ndcg_of_the_formula() -> None:
    scores = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert ndcg(scores, [[0], [1], [0, 2]], k=2).tolist() == pytest.approx(
        [1.0, 1 / np.log2(3), 1 / (1 + 1 / np.log2(3))]
    )


def test_a_disk_that_is_full_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "demo", "simulate", "--out", str(tmp_path / "shop"), "--shoppers", "500"]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )  # fmt: skip
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert f"--out {tmp_path / 'shop'}: the shop cannot be written: " in ended.stdout
    assert "File too large" in ended.stdout and "name another folder" in ended.stdout
