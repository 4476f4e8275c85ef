"""A job that read the log before the erasure publishes nothing of the person after it; what is gone is said."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sqlalchemy import text

from features import schema
from features.database.engine import open_database
from features.erasure import erase as erasing
from features.erasure import postgresql_bytes, sqlite_bytes
from features.erasure.erase import ErasureIncomplete, erase
from features.locks import locked
from features.log.event_log import EventLog
from features.offline import build as building
from features.online import materialize as materializing
from features.online.interest_encoder import InterestEncoder
from features.settings import Settings
from features.stream import worker as stream_worker
from tests.conditions import eventually
from tests.features.erasable import (
    IDS,
    OTHER,
    OTHER_KEYS,
    PERSON,
    RELEASE,
    THEIR_KEYS,
    VIEWS,
    durable_redis,
    event_of,
    files_that_name,
    online_rows,
    their_events,
    write_shop,
)
from tests.features.shops import START_MS, now_ms
from tests.processes import free_ports


@pytest.fixture
def shop(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A full shop; an erasure waits for nothing."""
    write_shop(settings).dispose()
    monkeypatch.setattr(erasing, "JOBS_WAIT_S", 0.0)
    return settings


def erase_beside(settings: Settings, job: str) -> None:
    """Erases the person while a job is under way."""
    with pytest.raises(ErasureIncomplete, match=rf"working files of `features {job}` \(it is under way"):
        erase(settings, user_id=PERSON)


def assert_gone(settings: Settings) -> None:
    """No row and, after one more call, no byte."""
    assert online_rows(settings, THEIR_KEYS) == dict.fromkeys(VIEWS, {})
    assert all(online_rows(settings, OTHER_KEYS).values())
    erase(settings, user_id=PERSON)
    assert files_that_name(settings.home, *IDS) == set()


@pytest.mark.parametrize("when", ["while it works", "after the files, before the online rows"])
def test_a_build_under_way_publishes_nothing_of_the_person(
    shop: Settings, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    write, publish = building.write_shopper_rows, building.current_rows.write_online

    def work(*arguments: Any) -> None:
        write(*arguments)
        assert files_that_name(shop.offline / ".building", PERSON)
        erase_beside(shop, "build")

    def then_online(*arguments: Any) -> None:
        erase_beside(shop, "build")
        publish(*arguments)

    if when == "while it works":
        monkeypatch.setattr(building, "write_shopper_rows", work)
    else:
        monkeypatch.setattr(building.current_rows, "write_online", then_online)
    building.build(shop)
    events = pl.read_parquet(shop.offline / "events.parquet")
    assert set(events["shopper"]) == set(OTHER_KEYS)
    assert files_that_name(shop.offline, *IDS) == set()
    assert_gone(shop)


def test_a_materialization_under_way_publishes_nothing_of_the_person(
    shop: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(_encoder: InterestEncoder, histories: Path, vectors: Path) -> None:
        read = pl.read_parquet(histories, columns=["shopper"])
        assert f"u:{PERSON}" in read["shopper"]
        read.with_columns(vector=pl.lit([0.25, 0.5]).cast(pl.List(pl.Float32))).write_parquet(vectors)
        erase_beside(shop, "materialize")

    monkeypatch.setattr(InterestEncoder, "encode", encode)
    monkeypatch.setattr(materializing, "read_manifest", lambda _files: _Manifest())
    materializing.materialize(shop, RELEASE)
    parts = pl.read_parquet(shop.offline / schema.interest_view(RELEASE))
    assert set(parts["shopper"]) == set(OTHER_KEYS)
    assert np.allclose(online_rows(shop, ["u:0"])[schema.interest_view(RELEASE)]["u:0"]["vector"], [0.25, 0.5])
    assert_gone(shop)


class _Manifest:
    files = {schema.ENCODER_FILE: "checksum"}


def test_a_stream_worker_that_is_behind_writes_nothing_of_the_person(shop: Settings) -> None:
    engine = open_database(shop.log_url)
    worker = stream_worker.Worker(shop)
    worker.share()
    more = [event_of(f"more-{n}", None if n % 2 else PERSON, f"{n % 7}", hour=n) for n in range(60)]
    EventLog(engine).append(more, now_ms())
    erase(shop, user_id=PERSON)
    while worker.log.follow():
        pass
    assert worker.profiles is not None
    worker.profiles.follow()
    worker.close()
    engine.dispose()
    assert_gone(shop)


def test_a_store_that_is_gone_is_named_and_the_next_call_goes_on(
    new_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    port, folder = free_ports(), tmp_path / "redis"
    folder.mkdir()
    settings = new_settings(online_store="redis", redis_url=f"127.0.0.1:{port}")
    with durable_redis(folder, port):
        write_shop(settings).dispose()
    for _ in range(2):
        with pytest.raises(
            ErasureIncomplete, match=r"^not yet erased from the online store \(Redis at BRAID_REDIS_URL"
        ):
            erase(settings, user_id=PERSON)
    assert files_that_name(settings.offline, *IDS) == set()
    with durable_redis(folder, port):
        assert online_rows(settings, THEIR_KEYS)[schema.RECENT_VIEW]
        erase(settings, user_id=PERSON)
        assert_gone(settings)
        assert files_that_name(folder, *IDS) == set()


def test_a_reader_of_an_old_state_is_named_and_the_next_call_goes_on(
    shop: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_bytes, "READERS_WAIT_S", 0.3)
    reader = sqlite3.connect(shop.home / "braid.db", isolation_level=None)
    reader.execute("BEGIN")
    count = reader.execute("SELECT count(*) FROM events").fetchone()
    with pytest.raises(ErasureIncomplete, match=r"the database's files \(an old state of braid\.db is being read"):
        erase(shop, user_id=PERSON)
    assert reader.execute("SELECT count(*) FROM events").fetchone() == count
    reader.close()
    assert_gone(shop)


def test_a_job_that_waits_for_its_turn_is_in_nobodys_way(
    new_settings: Callable[..., Settings], postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_bytes, "WAIT_S", 1)
    settings = new_settings(database_url=postgres_url)
    engine = open_database(postgres_url)
    EventLog(engine).append(their_events(), START_MS)
    waiting = threading.Thread(target=take_turn, args=(settings,))
    at_locks = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%_advisory_lock(%'"
    )
    with locked(settings, "stream"):
        waiting.start()
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            eventually(lambda: connection.scalar(text(at_locks)) == 3, what="the second job at the lock")
        erase(settings, user_id=PERSON)
    waiting.join()
    engine.dispose()


def take_turn(settings: Settings) -> None:
    """Takes its turn."""
    with locked(settings, "stream"):
        pass


def test_a_transaction_that_sees_deleted_rows_is_named_and_the_next_call_goes_on(
    new_settings: Callable[..., Settings], postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_bytes, "WAIT_S", 1)
    settings = new_settings(database_url=postgres_url)
    engine = open_database(postgres_url)
    EventLog(engine).append(their_events(), START_MS)
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as reader:
        assert reader.scalar(text("SELECT count(*) FROM events")) == len(their_events())
        with pytest.raises(ErasureIncomplete, match=r"the database's files \(PostgreSQL's process \d+ keeps"):
            erase(settings, user_id=PERSON)
        reader.rollback()
        erase(settings, user_id=PERSON)
        assert set(EventLog(engine).read_after(0, 100)["shopper"]) == {f"u:{OTHER}"}
    engine.dispose()
