"""The demo's steps: which shop, what is built already, what stops it; and who the story is about."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from demo import protagonist
from demo.oracle import Oracle
from demo.pipeline import (
    DemoError,
    Shop,
    State,
    _check_source,
    _source,
    _steps,
    _stop_others,
    build,
    live_release,
    open_shop,
)
from demo.simulate import CHUNK, ShopPlan, simulate
from demo.storefront import Shown
from demo.story import another_taste
from deploy.embedded import stack
from deploy.embedded.neighbours import holding_ports, shops_beside
from features.database.engine import open_database
from features.releases.release_table import ReleaseTable
from features.schema import FUSION_MODEL, MANIFEST_FILE, EventType
from features.settings import ROOT, Settings, load_settings
from features.shop.catalogue import Catalogue
from tests.conditions import eventually
from tests.conftest import NewSettings
from tests.features.test_releases import manifest
from tests.processes import environment

DAY_MS = 86_400_000


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BRAID_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("BRAID_MODEL_REPOSITORY", str(tmp_path / "repository"))
    return tmp_path / "var"


def _offline(folder: Path, rows: list[tuple[str, str, EventType, int]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    events = pl.DataFrame(
        [(shopper, item, int(kind), time_ms, None) for shopper, item, kind, time_ms in rows],
        schema={
            "shopper": pl.String,
            "item_id": pl.String,
            "event_type": pl.Int32,
            "event_time_ms": pl.Int64,
            "order_id": pl.String,
        },
        orient="row",
    )
    events.write_parquet(folder / "events.parquet")
    items = events.select("item_id").unique().sort("item_id")
    items.with_columns(category_path=pl.lit(None, pl.List(pl.String)), brand=pl.lit(None, pl.String)).write_parquet(
        folder / "items.parquet"
    )
    return folder


def _demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "demo", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_a_file_gets_a_home_of_its_own(home: Path, tmp_path: Path) -> None:
    data = tmp_path / "Online Retail.xlsx"
    data.write_bytes(b"x")
    shop = open_shop(data, None)
    assert shop.settings.home == home / "online-retail"
    assert shop.settings.model_repository == home / "online-retail" / "model_repository"
    assert os.environ["BRAID_HOME"] == str(shop.settings.home)
    assert shop.truth is None
    assert "make down" in f"{shop.prefix}make down" and "online-retail" in shop.prefix


def test_shops_of_files_stand_beside_each_other_and_the_simulated_one(home: Path) -> None:
    for shop in (home, home / "online-retail", home / "taobao"):
        State(shop / "demo.json").save()
    (home / "logs").mkdir()

    def beside(own: Path) -> set[Path]:
        found = {other.home for other in shops_beside(Settings(home=own), "demo.json")}
        return {other for other in found if other.is_relative_to(home)}

    assert beside(home) == {home / "online-retail", home / "taobao"}
    assert beside(home / "taobao") == {home, home / "online-retail"}


def test_a_shop_beside_is_stopped_only_where_it_holds_the_same_ports(
    new_settings: NewSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = new_settings()
    rival = new_settings(gateway_address=running.gateway_address, triton_address=running.triton_address)
    for name, value in environment(running).items():
        monkeypatch.setenv(name, value)
    stack.start(running)
    try:
        eventually(lambda: bool(holding_ports(rival)), within_s=60, what="a program that listens")
        State(running.home / "demo.json").save()
        _stop_others(Console(), new_settings())
        assert stack.is_up(running)
        _stop_others(Console(), rival)
        assert not stack.is_up(running)
    finally:
        stack.stop(running)


def test_without_a_file_the_shop_is_the_simulated_one(home: Path) -> None:
    shop = open_shop(None, None)
    assert shop.settings.home == home
    assert shop.truth == home / "simulated"


def test_a_missing_file_ends_in_one_line(home: Path, tmp_path: Path) -> None:
    done = _demo("run", "--data", str(tmp_path / "no.csv"))
    assert done.returncode == 1
    assert done.stdout.strip().endswith("no.csv: no such file")
    assert "Traceback" not in done.stdout + done.stderr


def test_a_plan_out_of_bounds_ends_in_one_line(tmp_path: Path) -> None:
    done = _demo("simulate", "--out", str(tmp_path), "--shoppers", "0")
    assert done.returncode == 2
    assert "shoppers must be 1 to" in done.stdout and "Traceback" not in done.stdout + done.stderr


def test_a_file_that_changed_is_not_mixed_with_what_was_built(home: Path, tmp_path: Path) -> None:
    data = tmp_path / "shop.csv"
    data.write_text("user,item\n")
    shop = open_shop(data, None)
    State(shop.settings.home / "demo.json", source={"path": str(data), "bytes": 1}, done=["import"]).save()
    with pytest.raises(DemoError, match="Delete .* to build anew"):
        build(Console(), shop)


def test_items_are_imported_from_the_file_that_is_given(home: Path, tmp_path: Path) -> None:
    data, items = tmp_path / "Beauty.jsonl", tmp_path / "meta_Beauty.jsonl"
    data.write_text('{"user_id": "ann", "parent_asin": "B1", "timestamp": 1600000000000}\n')
    items.write_text('{"parent_asin": "B1", "title": "Comb", "store": "Corvo", "categories": ["Hair"]}\n')
    shop = open_shop(data, None, items)
    step = next(step for step in _steps(shop) if step.name == "import")
    subprocess.run([sys.executable, *step.arguments], cwd=ROOT, check=True)
    State(shop.settings.home / "demo.json", source=_source(shop), done=["import"]).save()
    engine = open_database(shop.settings.log_url)
    try:
        assert Catalogue(engine).frame()["title"].to_list() == ["Comb"]
    finally:
        engine.dispose()
    _check_source(shop, State.of(shop.settings))
    items.write_text(items.read_text() * 2)
    for other in (shop, open_shop(data, None)):
        with pytest.raises(DemoError, match="Delete .* to build anew"):
            _check_source(other, State.of(shop.settings))
    with pytest.raises(DemoError, match="make demo DATA=FILE"):
        open_shop(None, None, items)


def test_a_mapping_that_was_edited_is_not_mixed_with_what_was_built(home: Path, tmp_path: Path) -> None:
    data, mapping = tmp_path / "shop.csv", tmp_path / "shop.yaml"
    data.write_text("when;who;what\n")
    mapping.write_text("events: {}\n")
    shop = open_shop(data, str(mapping))
    facts = data.stat()
    source = {"path": str(data), "bytes": facts.st_size, "modified_ns": facts.st_mtime_ns, "mapping": str(mapping)}
    digest = {"mapping_sha256": hashlib.sha256(mapping.read_bytes()).hexdigest()}
    for kept in (source, source | digest):  # an older demo kept no digest
        State(shop.settings.home / "demo.json", source=kept, done=["import"]).save()
        _check_source(shop, State.of(shop.settings))
    mapping.write_text("events: {user: who}\n")
    with pytest.raises(DemoError, match="Delete .* to build anew"):
        _check_source(shop, State.of(shop.settings))


def test_a_file_whose_import_stored_nothing_may_be_given_again_with_a_mapping(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo.pipeline._check_machine", lambda _settings: None)
    data = tmp_path / "strange.csv"
    data.write_text("when;who;what;act\n2026-03-01 09:12:44;c1;A;view\n")
    good, wrong = tmp_path / "good.yaml", tmp_path / "wrong.yaml"
    good.write_text("events: {user: who, item: what, type: {column: act}, time: {column: when}}\n")
    wrong.write_text(good.read_text().replace("who", "whom"))
    for mapping in (None, str(wrong)):
        monkeypatch.setenv("BRAID_HOME", str(home))
        with pytest.raises(DemoError, match="the step `import` ended with exit code 2") as stopped:
            build(Console(), open_shop(data, mapping))
        alone = (
            f"To run it alone: BRAID_HOME={home}/strange BRAID_MODEL_REPOSITORY={home}/strange/model_repository .venv/"
        )
        assert alone in str(stopped.value)
    imported = [sys.executable, "-m", "features", "import", str(data), "--mapping", str(good)]
    subprocess.run(imported, cwd=ROOT, check=True, capture_output=True)
    monkeypatch.setenv("BRAID_HOME", str(home))
    with pytest.raises(DemoError, match="Delete .* to build anew"):
        build(Console(), open_shop(data, str(good)))


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff\xfe\x00junk",
        b"[]",
        b"5",
        b'{"done": 5}',
        b'{"source": "events.csv"}',
        b'{"told": {}}',
        b'{"path": "elsewhere"}',
    ],
)
def test_a_damaged_state_file_is_named_with_the_remedy(home: Path, content: bytes) -> None:
    home.mkdir(parents=True)
    (home / "demo.json").write_bytes(content)
    with pytest.raises(DemoError, match=r"demo\.json is damaged \(.*\); delete it to build the shop again"):
        State.of(Settings(home=home))


def test_a_demo_with_a_damaged_state_file_ends_in_one_line(home: Path) -> None:
    (home / "demo.json").mkdir(parents=True)
    done = _demo("run")
    assert done.returncode == 1
    assert "demo.json is damaged" in done.stdout and "Traceback" not in done.stdout + done.stderr


def test_the_state_comes_back_as_it_was_saved(home: Path) -> None:
    State(home / "demo.json", source={"simulated": True}, done=["import"], told=["a"]).save()
    assert State.of(Settings(home=home)).done == ["import"]
    assert json.loads((home / "demo.json").read_text())["told"] == ["a"]


def test_the_figures_are_of_the_release_that_is_live_whatever_others_lie_beside_it(home: Path) -> None:
    settings = load_settings()
    assert live_release(settings) is None
    engine = open_database(settings.log_url)
    table = ReleaseTable(engine)
    for number in (1, 2):
        table.record(number, manifest(number), "ada", "a test")
        table.change_state(number, "live", "ada", "a test")
    table.rollback("ada", "a test")
    engine.dispose()
    for number in (1, 2, 3):  # the third is another shop's
        folder = settings.model_repository / FUSION_MODEL / str(number)
        folder.mkdir(parents=True)
        (folder / MANIFEST_FILE).write_text("{}")
    assert live_release(settings) == 1


def test_the_protagonist_has_a_clear_taste_and_a_past(tmp_path: Path) -> None:
    fan = [("u:fan", f"item-{i % 3}", EventType.PURCHASE, i * DAY_MS) for i in range(30)]
    drifter = [("u:drifter", f"other-{i}", EventType.VIEW, i * DAY_MS) for i in range(30)]
    guest = [("s:guest", "item-0", EventType.PURCHASE, i * DAY_MS) for i in range(30)]
    past = protagonist.choose(_offline(tmp_path, fan + drifter + guest), told=[])
    assert past is not None
    assert (past.user_id, past.events, past.purchases, past.orders) == ("fan", 30, 30, 30)
    assert [row[0] for row in past.bought] == ["item-2", "item-1", "item-0"]
    assert past.looked == []
    assert past.last_ms == 29 * DAY_MS


def test_a_second_story_is_about_somebody_else(tmp_path: Path) -> None:
    rows = [(f"u:{name}", "item", EventType.VIEW, i * DAY_MS) for name in ("a", "b") for i in range(5)]
    offline = _offline(tmp_path, rows)
    first = protagonist.choose(offline, told=[])
    assert first is not None
    second = protagonist.choose(offline, told=[first.user_id])
    third = protagonist.choose(offline, told=["a", "b"])
    assert second is not None and third is not None
    assert {first.user_id, second.user_id} == {"a", "b"}
    assert third.user_id == first.user_id


def test_a_log_without_signed_in_shoppers_has_no_story(tmp_path: Path) -> None:
    assert protagonist.choose(_offline(tmp_path, [("s:guest", "item", EventType.VIEW, 0)]), told=[]) is None


class _OneItemShop:
    """A storefront of a shop that sells one item."""

    def show_all(self, item_ids: list[str]) -> list[Shown]:
        return [Shown(item_id, item_id) for item_id in item_ids]


def test_a_shop_of_one_item_still_has_five_events(tmp_path: Path) -> None:
    past = protagonist.choose(_offline(tmp_path, [("u:only", "item", EventType.VIEW, 0)]), told=[])
    assert past is not None
    assert [item.item_id for item in another_taste(_OneItemShop(), past)] == ["item"] * 5  # type: ignore[arg-type]


def test_the_truth_spans_several_chunks_of_shoppers(tmp_path: Path) -> None:
    simulate(ShopPlan(shoppers=CHUNK + 100, items=50, days=7), tmp_path)
    assert pl.read_parquet(tmp_path / "users.parquet")["user_id"].n_unique() == CHUNK + 100
    oracle = Oracle(tmp_path)
    visits = oracle.buying_visits().filter(pl.col("shopper") >= CHUNK - 50)
    assert set(visits["shopper"] // CHUNK) == {0, 1}
    scores = oracle.scores(visits)
    reversed_scores = oracle.scores(visits.reverse())
    assert (scores == reversed_scores[::-1]).all()
    best = scores.argsort(axis=1)[:, -10:]
    hits = [any(item in top for item in bought) for top, bought in zip(best, visits["bought"].to_list(), strict=True)]
    assert sum(hits) / len(hits) > 0.4


def test_the_oracle_refuses_a_shop_of_another_version(tmp_path: Path) -> None:
    simulate(ShopPlan(shoppers=20, items=20, days=7), tmp_path)
    items = pl.read_parquet(tmp_path / "truth" / "items.parquet")
    other = items.with_columns(pl.Series("style", -items["style"].to_numpy()))
    other.write_parquet(tmp_path / "truth" / "items.parquet")
    with pytest.raises(ValueError, match="another version"):
        Oracle(tmp_path)


def test_a_shop_in_the_default_home_needs_no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BRAID_GATEWAY_ADDRESS", "BRAID_TRITON_ADDRESS", "BRAID_GATEWAY_METRICS_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    shop = Shop(settings=Settings(home=ROOT / "var"), data=ROOT / "x", mapping=None, simulated=True)
    assert shop.prefix == ""
    monkeypatch.setenv("BRAID_GATEWAY_ADDRESS", "127.0.0.1:50061")
    assert shop.prefix == "BRAID_GATEWAY_ADDRESS=127.0.0.1:50061 "
    other = Shop(settings=Settings(home=ROOT / "var" / "b"), data=ROOT / "x", mapping=None, simulated=False)
    assert other.prefix == "BRAID_HOME=var/b BRAID_GATEWAY_ADDRESS=127.0.0.1:50061 "
