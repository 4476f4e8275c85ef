"""The Feast repository on SQLite and Redis: definitions that follow the releases, rows that are replaced as a whole."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pandas as pd
import polars as pl
import pytest
import redis
from feast.repo_config import load_repo_config
from feast.repo_operations import get_repo_files

from features import schema, store
from features.online.rows import INTEREST_ROWS, PROFILE_ROWS, RECENT_ROWS
from features.settings import ROOT, Settings
from tests.features.shops import online, write_generated
from tests.processes import environment

NOON = 1_700_000_000_000
OPENING = 6


@pytest.fixture(params=["sqlite", "redis"])
def shop(request: pytest.FixtureRequest, new_settings: Callable[..., Settings]) -> Settings:
    """An applied shop without rows, on either online store."""
    if request.param == "sqlite":
        settings = new_settings()
    else:
        url = request.getfixturevalue("redis_url")
        settings = new_settings(online_store="redis", redis_url=url)
        host, port = url.split(":")
        with redis.Redis(host=host, port=int(port)) as client:
            client.flushdb()
    store.apply(settings)
    return settings


def recent(shopper: str, item: str, time_ms: int = NOON, position: int = 1) -> pl.DataFrame:
    row = {
        "shopper": shopper,
        "event_ids": [f"event of {item}"],
        "item_ids": [item],
        "event_types": [1],
        "event_times_ms": [time_ms],
        "log_position": position,
        "event_timestamp": time_ms,
    }
    return _frame([row], RECENT_ROWS)


def _frame(rows: list[dict[str, object]], columns: dict[str, pl.DataType]) -> pl.DataFrame:
    plain = columns | {"event_timestamp": pl.Int64()}
    moment = pl.from_epoch("event_timestamp", time_unit="ms").dt.cast_time_unit("us").dt.replace_time_zone("UTC")
    return pl.DataFrame(rows, schema=plain).with_columns(moment)


@pytest.mark.parametrize("step_ms", [0, -60_000, 1], ids=["equal", "older", "newer"])
def test_a_rewritten_row_replaces_the_stored_one_whatever_its_timestamp(shop: Settings, step_ms: int) -> None:
    with store.opened(shop) as feast:
        store.write_recent(feast, recent("u:1", "lamp"))
        store.write_recent(feast, recent("u:1", "chair", NOON + step_ms, position=2))
    row = online(shop, schema.RECENT_VIEW, ["u:1"])["u:1"]
    assert row is not None
    assert row["item_ids"] == ["chair"]
    assert row["log_position"] == 2


def test_one_shoppers_row_leaves_the_others_alone(shop: Settings) -> None:
    with store.opened(shop) as feast:
        store.write_recent(feast, pl.concat([recent("u:1", "lamp"), recent("s:1", "desk")]))
        store.write_recent(feast, recent("u:1", "chair"))
    rows = online(shop, schema.RECENT_VIEW, ["u:1", "s:1", "u:2"])
    assert [row and row["item_ids"] for row in rows.values()] == [["chair"], ["desk"], None]


def test_a_deleted_shopper_is_gone_from_every_view_and_the_others_stay(shop: Settings) -> None:
    write_generated(shop, 1, 2)
    store.apply(shop)
    interest = {"vector": [0.5, 1.0], "encoded_through_ms": NOON, "encoded_position": 1, "event_timestamp": NOON}
    with store.opened(shop) as feast:
        for name in ("u:1", "u:2"):
            store.write_recent(feast, recent(name, "lamp"))
            store.write_interest(feast, 1, _frame([{"shopper": name, **interest}], INTEREST_ROWS))
        store.delete_shoppers(feast, ["u:1", "u:nobody"])
    for view in (schema.RECENT_VIEW, schema.interest_view(1)):
        rows = online(shop, view, ["u:1", "u:2"])
        assert rows["u:1"] is None
        assert rows["u:2"] is not None


def test_ids_with_spaces_and_emoji_are_kept(shop: Settings) -> None:
    with store.opened(shop) as feast:
        store.write_recent(feast, recent("u:a b 🪑", "chair 🪑"))
    row = online(shop, schema.RECENT_VIEW, ["u:a b 🪑"])["u:a b 🪑"]
    assert row is not None and row["item_ids"] == ["chair 🪑"]


def test_a_profile_can_be_cleared(shop: Settings) -> None:
    full = {"shopper": "u:1", "age": 40, "gender": "f", "country": "GB", "event_timestamp": NOON}
    with store.opened(shop) as feast:
        store.write_profiles(feast, _frame([full], PROFILE_ROWS))
        store.write_profiles(feast, _frame([{"shopper": "u:1", "event_timestamp": NOON}], PROFILE_ROWS))
    assert online(shop, schema.PROFILE_VIEW, ["u:1"])["u:1"] is None


def test_missing_attributes_stay_missing_beside_given_ones(shop: Settings) -> None:
    rows = [
        {"shopper": "u:1", "age": 40, "event_timestamp": NOON},
        {"shopper": "u:2", "country": "GB", "event_timestamp": NOON},
    ]
    with store.opened(shop) as feast:
        store.write_profiles(feast, _frame(rows, PROFILE_ROWS))
    found = online(shop, schema.PROFILE_VIEW, ["u:1", "u:2"])
    assert found["u:1"] == {"age": 40, "gender": None, "country": None}
    assert found["u:2"] == {"age": None, "gender": None, "country": "GB"}


def test_a_release_gets_its_own_view_and_service_and_loses_them_when_it_goes(shop: Settings) -> None:
    for release, dim in ((1, 2), (2, 3)):
        write_generated(shop, release, dim)
    store.apply(shop)
    with store.opened(shop) as feast:
        for release, dim in ((1, 2), (2, 3)):
            row = {"shopper": "u:1", "vector": [0.5] * dim, "encoded_through_ms": 1, "encoded_position": 1}
            store.write_interest(feast, release, _frame([row | {"event_timestamp": NOON}], INTEREST_ROWS))
    (shop.generated / "v1.json").unlink()
    store.apply(shop)
    with store.opened(shop) as feast:
        services = [service.name for service in feast.list_feature_services()]
        views = {view.name for view in feast.list_feature_views()}
    assert services == ["fusion_v2"]
    assert views == {
        schema.RECENT_VIEW,
        schema.PURCHASES_VIEW,
        schema.PROFILE_VIEW,
        schema.ITEM_STATISTICS_VIEW,
        "user_interest_v2",
    }
    row_2 = online(shop, "user_interest_v2", ["u:1"])["u:1"]
    assert row_2 is not None and row_2["vector"] == [0.5] * 3


def test_a_service_reads_everything_that_a_release_needs_in_one_call(shop: Settings) -> None:
    write_generated(shop, 7, 2)
    store.apply(shop)
    with store.opened(shop) as feast:
        store.write_recent(feast, recent("u:1", "lamp"))
        service = feast.get_feature_service("fusion_v7")
        answer = feast.get_online_features(service, [{"shopper": "u:1"}], full_feature_names=True).to_dict()
    assert answer["shopper_recent__item_ids"] == [["lamp"]]
    expected = {
        f"{view}__{name}"
        for view, names in (
            ("user_interest_v7", schema.INTEREST_FEATURES),
            (schema.RECENT_VIEW, schema.RECENT_FEATURES),
            (schema.PURCHASES_VIEW, schema.PURCHASES_FEATURES),
            (schema.PROFILE_VIEW, schema.PROFILE_FEATURES),
        )
        for name in names
    }
    assert set(answer) == expected | {"shopper"}


def test_applying_again_keeps_the_rows(shop: Settings) -> None:
    with store.opened(shop) as feast:
        store.write_recent(feast, recent("u:1", "lamp"))
    store.apply(shop)
    assert online(shop, schema.RECENT_VIEW, ["u:1"])["u:1"] is not None


def test_pushed_events_arrive_through_feasts_own_push_source(shop: Settings) -> None:
    with store.opened(shop) as feast:
        feast.push(schema.RECENT_PUSH_SOURCE, recent("u:1", "lamp").to_pandas())
    assert online(shop, schema.RECENT_VIEW, ["u:1"])["u:1"] is not None


def test_sqlite_files_are_in_wal_mode(settings: Settings) -> None:
    store.apply(settings)
    for name in ("online.db", "registry.db"):
        connection = sqlite3.connect(settings.home / name)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",), name
        connection.close()


def test_the_registry_lies_in_the_shops_postgresql(new_settings: Callable[..., Settings], postgres_url: str) -> None:
    settings = new_settings(database_url=postgres_url)
    store.apply(settings)
    assert not (settings.home / "registry.db").exists()
    with store.opened(settings) as feast:
        assert len(feast.list_feature_views()) == 4


def test_several_may_open_the_registry_of_a_new_shop_at_once(
    new_settings: Callable[..., Settings], database_url: str
) -> None:
    settings = new_settings(database_url=database_url)
    start = Barrier(OPENING)

    def open_together(_: int) -> list[object]:
        start.wait()
        feast = store.open_registry(settings)
        views: list[object] = feast.list_feature_views()
        store.close(feast)
        return views

    with ThreadPoolExecutor(OPENING) as threads:
        assert list(threads.map(open_together, range(OPENING))) == [[]] * OPENING


def test_historical_features_before_the_first_build_are_none(settings: Settings) -> None:
    store.apply(settings)
    asked = pd.DataFrame({"shopper": ["u:1"], "event_timestamp": [pd.Timestamp(NOON, unit="ms", tz="UTC")]})
    with store.opened(settings) as feast:
        got = feast.get_historical_features(asked, [f"{schema.RECENT_VIEW}:log_position"]).to_df()
    assert got["log_position"].dropna().empty


def test_a_redis_that_is_down_is_named_with_its_setting_and_without_its_password(
    new_settings: Callable[..., Settings],
) -> None:
    settings = new_settings(online_store="redis", redis_url="127.0.0.1:1,password=hunter2")
    with pytest.raises(store.StoreError, match="BRAID_REDIS_URL=127.0.0.1:1 does not answer") as down:
        store.open_store(settings)
    assert "hunter2" not in str(down.value)


def test_an_option_that_no_client_of_redis_has_is_named(new_settings: Callable[..., Settings]) -> None:
    settings = new_settings(online_store="redis", redis_url="127.0.0.1:1,password=hunter2,paswd=x")
    with pytest.raises(store.StoreError, match="BRAID_REDIS_URL=127.0.0.1:1,… has an option .*'paswd'") as refused:
        store.open_store(settings)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("content", ["{", "[]", '{"release": 1}'])
def test_a_broken_release_file_is_named(settings: Settings, content: str) -> None:
    settings.generated.mkdir(parents=True)
    (settings.generated / "v1.json").write_text(content)
    with pytest.raises(store.StoreError, match=r"v1\.json: expected an object with release and interest_dim"):
        store.apply(settings)


def test_feast_imports_definitions_alone() -> None:
    assert [path.name for path in get_repo_files(ROOT / "features")] == ["definitions.py"]


def test_the_committed_configuration_is_that_of_the_defaults() -> None:
    committed = load_repo_config(ROOT / "features", ROOT / "features" / "feature_store.yaml")
    built = store.repo_config(Settings())
    assert committed.project == built.project
    assert committed.entity_key_serialization_version == built.entity_key_serialization_version
    assert (ROOT / "features" / committed.online_store.path).resolve() == Path(built.online_store.path)
    assert committed.registry.registry_type == built.registry.registry_type == "sql"
    prefix, relative = committed.registry.path.split("///")
    assert f"{prefix}///{(ROOT / 'features' / relative).resolve()}" == built.registry.path


def test_feasts_own_commands_work_on_a_shop(settings: Settings) -> None:
    write_generated(settings, 3, 2)
    store.apply(settings)
    config = settings.home / "feature_store.yaml"
    assert json.loads(config.read_text())["project"] == "braid"
    assert "fusion_v3" in _feast(settings, "--feature-store-yaml", str(config), "feature-services", "list")
    applied = _feast(settings, "--chdir", "features", "--feature-store-yaml", str(config), "apply")
    assert "No changes to registry" in applied


def test_feasts_configuration_is_for_its_owner_alone_and_never_half_written(settings: Settings) -> None:
    store.apply(settings)
    path = settings.home / "feature_store.yaml"
    path.chmod(0o644)
    with path.open() as before:
        store.apply(settings)
        assert json.load(before)["project"] == "braid"
        assert os.fstat(before.fileno()).st_ino != path.stat().st_ino
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in settings.home.glob("feature_store*")] == [path.name]


def test_importing_feast_has_no_child_process_keep_its_counters_in_files() -> None:
    script = "import os; import features.store; assert not [name for name in os.environ if 'PROMETHEUS' in name]"
    ours = {name: value for name, value in os.environ.items() if "PROMETHEUS" not in name}  # Feast has set it here
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=ours, check=True, timeout=120)


def _feast(settings: Settings, *arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("feast")), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(settings), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
