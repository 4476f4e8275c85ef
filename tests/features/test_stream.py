"""The stream worker as a process: rows equal a batch build's whatever happened to the worker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

from features import schema, store
from features.database.counters import advance_counter, read_counter
from features.locks import locked
from features.log.event_log import EventLog, NewEvent
from features.online.rows import purchase_rows, recent_rows
from features.settings import Settings
from features.shop.users import UserProfile, Users
from features.stream import profile_follower
from features.stream import worker as stream_worker
from features.stream.shares import EVERY_SHARE
from features.stream.stream_positions import STREAM_COUNTER, stream_position
from tests.conditions import eventually
from tests.features.shops import START_MS, fill, now_ms, online, random_events, read_rows
from tests.features.workers import following
from tests.processes import environment, free_ports, required_binary, running

SHOPPERS = [f"{'u' if number % 2 == 0 else 's'}:{number}" for number in range(7)]


@contextmanager
def worker(settings: Settings, stop_signal: signal.Signals = signal.SIGTERM) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m features stream` on the shop."""
    command = [sys.executable, "-m", "features", "stream"]
    log = settings.logs / "stream.log"
    with running(command, log, env=environment(settings), stop_signal=stop_signal) as process:
        yield process


def expected(engine: Engine, view: str) -> dict[str, object]:
    """The rows that a batch build would write."""
    log = EventLog(engine)
    rows = (
        recent_rows(log.recent_of(SHOPPERS, schema.RECENT_EVENTS))
        if view == schema.RECENT_VIEW
        else purchase_rows(log.purchases_of(SHOPPERS))
    )
    found = dict(zip(rows["shopper"], rows.drop("shopper", "event_timestamp").to_dicts(), strict=True))
    return {shopper: found.get(shopper) for shopper in SHOPPERS}


def caught_up(engine: Engine) -> bool:
    """Whether the worker's durable position is the end of the log."""
    return stream_position(engine) == EventLog(engine).last_position()


def assert_equals_batch(settings: Settings, engine: Engine) -> None:
    for view in (schema.RECENT_VIEW, schema.PURCHASES_VIEW):
        assert online(settings, view, SHOPPERS) == expected(engine, view)


@pytest.fixture(params=["sqlite", "redis"])
def shop(request: pytest.FixtureRequest, new_settings: Callable[..., Settings]) -> Settings:
    """A shop on either online store."""
    if request.param == "sqlite":
        return new_settings()
    url = request.getfixturevalue("redis_url")
    host, port = url.split(":")
    with redis.Redis(host=host, port=int(port)) as client:
        client.flushdb()
    return new_settings(online_store="redis", redis_url=url)


def test_rows_equal_a_batch_build_while_events_keep_coming(shop: Settings) -> None:
    engine = fill(shop, random_events(100, seed=1))
    with following(shop):
        for part in range(5):
            EventLog(engine).append(random_events(40, seed=2 + part, first=100 + 40 * part), now_ms())
            eventually(lambda: caught_up(engine), within_s=30, what="the end of the log")
            assert_equals_batch(shop, engine)


@pytest.mark.timeout(180)
def test_a_killed_worker_loses_nothing(shop: Settings) -> None:
    engine = fill(shop, random_events(200, seed=11))
    log = EventLog(engine)
    with worker(shop, signal.SIGKILL) as process:
        eventually(lambda: read_counter(engine, STREAM_COUNTER) > 0, within_s=90, what="the first position")
        log.append(random_events(150, seed=12, first=200), now_ms())
        process.kill()
    log.append(random_events(50, seed=13, first=350), now_ms())
    with worker(shop) as process:
        eventually(lambda: caught_up(engine), within_s=90, what="the end of the log")
        beat = stream_worker.heartbeat_file(shop, process.pid)
        eventually(lambda: json.loads(beat.read_text())["behind"] == 0, what="the heartbeat")
        assert json.loads(beat.read_text())["position"] == 400
    assert not beat.exists()
    assert_equals_batch(shop, engine)


def test_repeating_what_was_done_changes_nothing(shop: Settings) -> None:
    engine = fill(shop, random_events(150, seed=21))
    store.apply(shop)
    worker = stream_worker.Worker(shop)
    worker.share()
    while worker.log.follow():
        pass
    before = [online(shop, view, SHOPPERS) for view in (schema.RECENT_VIEW, schema.PURCHASES_VIEW)]
    worker.log.positions = dict.fromkeys(EVERY_SHARE, 0)  # as after a crash before the position was durable
    while worker.log.follow():
        pass
    worker.close()
    assert [online(shop, view, SHOPPERS) for view in (schema.RECENT_VIEW, schema.PURCHASES_VIEW)] == before
    assert_equals_batch(shop, engine)


def test_a_late_event_takes_its_place_in_time(shop: Settings) -> None:
    engine = fill(shop, [])
    log = EventLog(engine)
    with following(shop):
        for name, hour in (("second", 2), ("first", 1)):
            event = NewEvent(
                event_id=name,
                event_type=1,
                event_time_ms=START_MS + hour,
                user_id="0",
                session_id=None,
                item_id=f"item {name}",
            )
            log.append([event], now_ms())
            eventually(lambda: caught_up(engine), within_s=30, what="the end of the log")
    row = online(shop, schema.RECENT_VIEW, ["u:0"])["u:0"]
    assert row is not None and row["item_ids"] == ["item first", "item second"]
    assert row["log_position"] == 2


def test_the_worker_follows_events_and_users_on_postgresql(
    new_settings: Callable[..., Settings], postgres_url: str
) -> None:
    settings = new_settings(database_url=postgres_url)
    engine = fill(settings, random_events(120, seed=31))
    with following(settings):
        eventually(lambda: caught_up(engine), within_s=30, what="the end of the log")
        assert_equals_batch(settings, engine)
        Users(engine).upsert([UserProfile(user_id="0", gender="f")])
        eventually(lambda: _profile(settings, "u:0") is not None, what="the profile")
    engine.dispose()


def test_changed_profiles_are_online_soon(settings: Settings) -> None:
    engine = fill(settings, [])
    users = Users(engine)
    with following(settings):
        users.upsert([UserProfile(user_id=f"{n}", age=20 + n) for n in range(3)])
        eventually(lambda: (_profile(settings, "u:2") or {}).get("age") == 22, what="the profile")
        users.upsert([UserProfile(user_id="2", country="GB")])
        eventually(lambda: (_profile(settings, "u:2") or {}).get("country") == "GB", what="the change")
    assert _profile(settings, "u:2") == {"age": None, "gender": None, "country": "GB"}


def test_more_profiles_than_a_batch_with_one_time_are_all_written(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = fill(settings, [])
    monkeypatch.setattr(profile_follower, "BATCH_USERS", 4)
    wrote_ms = now_ms()
    Users(engine).upsert([UserProfile(user_id=f"{n:02}", age=30) for n in range(11)], updated_time_ms=wrote_ms)
    worker = stream_worker.Worker(settings)
    worker.share()
    follower = worker.profiles
    assert follower is not None
    written = [follower.follow() for _ in range(5)]
    assert written == [4, 4, 3, 0, 0]
    late = [UserProfile(user_id="99", age=44)]
    Users(engine).upsert(late, updated_time_ms=wrote_ms - profile_follower.USERS_OVERLAP_MS // 2)  # committed late
    assert [follower.follow() for _ in range(4)].count(1) == 1
    worker.close()


def test_each_event_is_online_before_the_next_one_is_written(shop: Settings) -> None:
    engine = fill(shop, [])
    log = EventLog(engine)
    with following(shop):
        eventually(lambda: stream_worker.heartbeat_file(shop).exists(), within_s=30, what="the worker's start")
        with store.opened(shop) as feast:
            for number in range(15):
                item = f"item {number}"
                event = NewEvent(
                    event_id=item, event_type=1, event_time_ms=now_ms(), user_id="0", session_id=None, item_id=item
                )
                log.append([event], now_ms())
                eventually(lambda item=item: item in _items(feast), every_s=0.002, what=item)  # type: ignore[misc]


@pytest.mark.timeout(120)
def test_the_worker_outlives_a_store_that_is_gone(
    new_settings: Callable[..., Settings], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_ports()
    binary = required_binary("redis-server", "redis-server")
    command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    settings = new_settings(online_store="redis", redis_url=f"127.0.0.1:{port}")
    engine = fill(settings, random_events(30, seed=41))
    caplog.set_level("INFO")
    with ExitStack() as parts:
        with running(command, tmp_path / "redis.log"):
            eventually(lambda: _answers(port), what="Redis' first answer")
            parts.enter_context(following(settings))
            eventually(lambda: caught_up(engine), within_s=30, what="the end of the log")
        EventLog(engine).append(random_events(60, seed=42, first=30), now_ms())
        eventually(lambda: "cannot follow the log" in caplog.text, within_s=30, what="the error in the log")
        parts.enter_context(running(command, tmp_path / "redis.log"))
        eventually(lambda: caught_up(engine), within_s=30, what="the end of the log")
        found = online(settings, schema.RECENT_VIEW, SHOPPERS)
        eventually(lambda: "following the log again" in caplog.text, what="the end of the outage in the log")
    assert found == expected(engine, schema.RECENT_VIEW)
    assert caplog.text.count("cannot follow the log") == 1
    assert caplog.text.count("following the log again") == 1


def test_a_second_worker_on_sqlite_waits_for_the_first(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    engine = fill(settings, random_events(20, seed=51))
    caplog.set_level("INFO")
    with locked(settings, "stream"), following(settings):
        eventually(lambda: "another stream worker" in caplog.text, what="the message")
        assert stream_position(engine) == 0
    assert caplog.text.count("another stream worker") == 1
    engine.dispose()


def test_the_position_never_goes_back(settings: Settings) -> None:
    engine = fill(settings, [])
    advance_counter(engine, STREAM_COUNTER, 9)
    advance_counter(engine, STREAM_COUNTER, 4)
    assert read_counter(engine, STREAM_COUNTER) == 9


def _profile(settings: Settings, shopper: str) -> dict[str, object] | None:
    return online(settings, schema.PROFILE_VIEW, [shopper])[shopper]


def _items(feast: store.FeatureStore) -> list[str]:
    row = read_rows(feast, schema.RECENT_VIEW, ["u:0"])["u:0"]
    return row["item_ids"] if row else []


def _answers(port: int) -> bool:
    with redis.Redis(port=port) as client:
        return bool(client.ping())
