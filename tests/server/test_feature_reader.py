"""One read of the online store, on SQLite and on Redis, as lists and arrays."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest
import redis
from prometheus_client import REGISTRY

from features import store
from features.inputs.shopper import Events, LongInterest, Profile, Purchase, ShopperEvent, ShopperFeatures
from features.online.entity_keys import encoded
from features.settings import Settings
from server.deadline import Deadline
from server.errors import FeaturesUnavailable
from server.hydrate.feature_reader import FeatureReader
from tests.conditions import eventually_async
from tests.conftest import NewSettings
from tests.parts import held

NOW = datetime(2026, 9, 1, tzinfo=timezone.utc)


@pytest.fixture(params=["sqlite", "redis"])
def filled(request: pytest.FixtureRequest, new_settings: NewSettings) -> Settings:
    """A store with one shopper of release 1."""
    redis = {"online_store": "redis", "redis_url": request.getfixturevalue("redis_url")}
    settings = new_settings(**(redis if request.param == "redis" else {}))
    settings.generated.mkdir(parents=True)
    (settings.generated / "v1.json").write_text(json.dumps({"release": 1, "interest_dim": 3}))
    store.apply(settings)
    opened = store.open_store(settings)
    key = {"shopper": ["u:anna"], "event_timestamp": [NOW]}
    recent = {
        "event_ids": [["a", "b"]],
        "item_ids": [["x", "y"]],
        "event_types": [[1, 4]],
        "event_times_ms": [[100, 200]],
        "log_position": [7],
    }
    purchases = {
        "item_ids": [["y"]],
        "counts": [[2]],
        "first_times_ms": [[50]],
        "last_times_ms": [[200]],
        "basket_count": [3],
    }
    interest = {"vector": [[1.0, 2.0, 3.0]], "encoded_through_ms": [150], "encoded_position": [6]}
    profile = {"age": [30], "gender": ["f"], "country": [None]}
    types = {"event_types": pl.List(pl.Int32), "counts": pl.List(pl.Int32), "vector": pl.List(pl.Float32)}
    types |= {"country": pl.String}

    def frame(columns: dict[str, object]) -> pl.DataFrame:
        return pl.DataFrame(key | columns, schema_overrides={name: types[name] for name in columns if name in types})

    store.write_recent(opened, frame(recent))
    store.write_purchases(opened, frame(purchases))
    store.write_profiles(opened, frame(profile))
    store.write_interest(opened, 1, frame(interest))
    return settings


@pytest.fixture
async def reader(filled: Settings) -> AsyncIterator[FeatureReader]:
    """An opened reader."""
    opened = FeatureReader(filled, 5.0)
    assert await opened.serves(1)
    assert not await opened.serves(2)
    yield opened
    opened.close()


async def test_a_known_shopper_and_a_stranger_in_one_read(reader: FeatureReader) -> None:
    anna, stranger = await reader.read(["u:anna", "s:nobody"], 1, Deadline())
    assert [*anna.recent] == [ShopperEvent("a", "x", 1, 100), ShopperEvent("b", "y", 4, 200)]
    assert [*anna.purchases] == [Purchase("y", 2, 50, 200)] and anna.basket_count == 3
    assert anna.profile == Profile(30, "f", None)
    assert isinstance(anna.interest, LongInterest) and anna.interest.encoded_through_ms == 150
    assert anna.interest.vector.dtype == np.float32 and anna.interest.vector.tolist() == [1.0, 2.0, 3.0]
    assert stranger == ShopperFeatures()


async def test_a_row_with_a_short_column_ends_where_that_does(reader: FeatureReader, filled: Settings) -> None:
    columns: dict[str, object] = {
        "shopper": ["u:torn"],
        "event_timestamp": [NOW],
        "event_ids": [["a", "b"]],
        "item_ids": [["x", "y"]],
        "event_types": [[1]],
        "event_times_ms": [[100, 200]],
        "log_position": [7],
    }
    with store.opened(filled) as opened:
        store.write_recent(opened, pl.DataFrame(columns, schema_overrides={"event_types": pl.List(pl.Int32)}))
    (torn,) = await reader.read(["u:torn"], 1, Deadline())
    assert torn.recent == Events(["a"], ["x"], [1], [100])


@pytest.mark.parametrize("filled", ["sqlite"], indirect=True)
async def test_a_row_that_cannot_be_read_costs_nobody_else_theirs_and_is_logged_once(
    reader: FeatureReader, filled: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    columns = {"shopper": ["u:broken"], "event_timestamp": [NOW], "age": [30], "gender": ["f"], "country": ["GB"]}
    with store.opened(filled) as opened:
        store.write_profiles(opened, pl.DataFrame(columns))
    with closing(sqlite3.connect(filled.home / "online.db")) as database, database:
        (table,) = (name for (name,) in database.execute("SELECT name FROM sqlite_master") if name.endswith("profile"))
        statement = f"UPDATE {table} SET value = X'FFFF' WHERE entity_key = ? AND feature_name = 'age'"
        assert database.execute(statement, [encoded("u:broken")]).rowcount == 1
    for _ in range(3):
        broken, anna = await asyncio.gather(*(reader.read([key], 1, Deadline()) for key in ("u:broken", "u:anna")))
        assert broken == [ShopperFeatures()] and anna[0].profile == Profile(30, "f", None)
    assert caplog.text.count("rows of the online store cannot be read, `python -m features build` writes them") == 1


async def test_each_request_of_a_batch_reads_the_vector_of_its_own_release(reader: FeatureReader) -> None:
    answers = await asyncio.gather(*(reader.read(["u:anna"], release, Deadline()) for release in (1, 0, 9, 1)))
    assert [answer[0].interest is not None for answer in answers] == [True, False, False, True]
    assert all(answer[0].recent for answer in answers)


async def test_a_caller_without_time_is_told_at_once(reader: FeatureReader) -> None:
    with pytest.raises(FeaturesUnavailable):
        await reader.read(["u:anna"], 1, Deadline.after(0.001))


@pytest.mark.parametrize("filled", ["redis"], indirect=True)
async def test_a_store_that_hangs_is_waited_for_three_times_and_callers_in_a_hurry_say_nothing_of_it(
    filled: Settings,
) -> None:
    reader = FeatureReader(filled, 0.2)
    assert await reader.serves(1)
    host, port = filled.redis_url.split(":")
    with redis.Redis(host=host, port=int(port)) as client:
        server = psutil.Process(client.info()["process_id"])
    opened = {}
    with closing(reader):
        with held([server]):
            for within_s in (0.02, 10.0):
                for _ in range(3):
                    with pytest.raises(FeaturesUnavailable, match="too slow"):
                        await reader.read(["u:anna"], 1, Deadline.after(within_s))
                opened[within_s] = REGISTRY.get_sample_value("braid_breaker_open", {"part": "feature-store"})

        async def answered() -> bool:
            return bool((await reader.read(["u:anna"], 1, Deadline()))[0].recent)

        assert opened == {0.02: 0, 10.0: 1}
        await eventually_async(answered, what="the store's answers")


async def test_a_store_that_cannot_be_opened_is_gone_on_without(new_settings: NewSettings) -> None:
    settings = new_settings(online_store="redis", redis_url="127.0.0.1:1")
    reader = FeatureReader(settings, 1.0)
    follower = asyncio.ensure_future(reader.follow())
    await asyncio.wait_for(reader.opened.wait(), 30)
    with pytest.raises(FeaturesUnavailable, match="not open yet"):
        await reader.read(["u:anna"], 1, Deadline())
    follower.cancel()
    reader.close()


@pytest.mark.parametrize("filled", ["sqlite"], indirect=True)
async def test_a_reader_that_begins_without_the_stores_file_knows_the_releases_and_opens_it_later(
    filled: Settings, tmp_path: Path
) -> None:
    files = list(filled.home.glob("online.db*"))
    for file in files:
        file.rename(tmp_path / file.name)
    reader = FeatureReader(filled, 5.0)
    assert await reader.serves(1)
    with pytest.raises(FeaturesUnavailable, match="not open yet"):
        await reader.read(["u:anna"], 1, Deadline())
    assert not (filled.home / "online.db").exists()
    for file in files:
        (tmp_path / file.name).rename(file)
    follower = asyncio.ensure_future(reader.follow())

    async def known() -> bool:
        return bool((await reader.read(["u:anna"], 1, Deadline()))[0].recent)

    await eventually_async(known, within_s=30, what="the shopper's row")
    follower.cancel()
    reader.close()


@pytest.mark.parametrize("filled", ["sqlite"], indirect=True)
async def test_a_file_that_takes_the_stores_place_is_read_instead(reader: FeatureReader, filled: Settings) -> None:
    assert (await reader.read(["u:anna"], 1, Deadline()))[0].recent
    for file in filled.home.glob("online.db*"):
        file.unlink()
    with pytest.raises(FeaturesUnavailable, match="is not there"):
        await reader.read(["u:anna"], 1, Deadline())
    store.apply(filled)
    assert await reader.read(["u:anna"], 1, Deadline()) == [ShopperFeatures()]
