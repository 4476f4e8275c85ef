"""What a stream worker outlives: a database that is locked or gone, a full disk, data that makes no row."""

from __future__ import annotations

import json
import logging
import resource
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy.exc import OperationalError

from benchmarks.equivalence import differences
from features import schema
from features.log.event_log import EventLog, NewEvent
from features.online.shopper_rows import RowsToWrite
from features.settings import Settings
from features.stream import worker as stream_worker
from features.stream.stream_positions import stream_position
from tests import postgres
from tests.conditions import eventually
from tests.features.shops import START_MS, fill, now_ms, online, random_events
from tests.features.workers import following, workers
from tests.wire import wire


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> None:
    """Everything that is logged is kept."""
    caplog.set_level("INFO")


@pytest.mark.timeout(120)
def test_a_locked_online_store_is_waited_for_and_said_once(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    engine = fill(settings, random_events(20, seed=1))
    with following(settings):
        eventually(lambda: stream_position(engine) == 20, within_s=30, what="the end of the log")
        with holding(settings):
            EventLog(engine).append(random_events(20, seed=2, first=20), now_ms())
            eventually(lambda: "cannot follow the log" in caplog.text, within_s=40, what="the error in the log")
        eventually(lambda: "following the log again" in caplog.text, within_s=60, what="the end of the outage")
        eventually(lambda: stream_position(engine) == 40, within_s=30, what="the end of the log")
    assert caplog.text.count("cannot follow the log") == caplog.text.count("following the log again") == 1
    assert list(differences(settings)) == []


@pytest.mark.timeout(120)
def test_an_online_store_whose_file_is_gone_is_waited_for(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = fill(settings, random_events(20, seed=1))
    with following(settings):
        eventually(lambda: stream_position(engine) == 20, within_s=30, what="the end of the log")
        files = list(settings.home.glob("online.db*"))
        for file in files:
            file.rename(tmp_path / file.name)
        eventually(lambda: "online.db is not there" in caplog.text, within_s=30, what="the error in the log")
        EventLog(engine).append(random_events(20, seed=2, first=20), now_ms())
        for file in files:
            shutil.copy(tmp_path / file.name, file)
        eventually(lambda: stream_position(engine) == 40, within_s=30, what="the end of the log")
    assert list(differences(settings)) == []


@pytest.mark.timeout(120)
def test_a_redis_whose_host_vanishes_is_given_up_for_the_one_that_took_its_place(
    new_settings: Callable[..., Settings], redis_url: str
) -> None:
    with wire(redis_url) as cable:
        settings = new_settings(online_store="redis", redis_url=cable.address)
        engine = fill(settings, random_events(20, seed=1))
        with following(settings):
            eventually(lambda: stream_position(engine) == 20, within_s=30, what="the end of the log")
            cable.cut()
            EventLog(engine).append(random_events(20, seed=2, first=20), now_ms())
            eventually(lambda: stream_position(engine) == 40, within_s=40, what="the end of the log")
        engine.dispose()


@pytest.mark.timeout(180)
def test_postgresql_that_crashes_and_comes_back(
    new_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    with TemporaryDirectory(prefix="braid-postgres-") as name, ExitStack() as crashing:
        cluster = postgres.new_cluster(Path(name))
        crashing.enter_context(postgres.serving(cluster, stop_signal=signal.SIGQUIT))
        settings = new_settings(database_url=cluster.url)
        engine = fill(settings, random_events(30, seed=5))
        with following(settings):
            eventually(lambda: stream_position(engine) == 30, within_s=30, what="the end of the log")
            crashing.close()
            eventually(lambda: "cannot follow the log" in caplog.text, within_s=30, what="the error in the log")
            crashing.enter_context(postgres.serving(cluster))
            engine.dispose()
            log = EventLog(engine)
            log.append(random_events(30, seed=6, first=30), now_ms())
            eventually(lambda: stream_position(engine) == log.last_position(), within_s=30, what="the end of the log")
            eventually(lambda: "following the log again" in caplog.text, within_s=30, what="the end of the outage")
        assert list(differences(settings)) == []
        engine.dispose()
    assert caplog.text.count("cannot follow the log") == caplog.text.count("following the log again") == 1


@pytest.mark.timeout(120)
def test_a_disk_that_takes_no_more(settings: Settings) -> None:
    """A limit on the size of the worker's files stands in for a full disk."""
    engine = fill(settings, random_events(20, seed=7))
    with workers(settings, 1) as running:
        eventually(lambda: stream_position(engine) == 20, within_s=60, what="the end of the log")
        pid = running.pids[0]
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (64 * 1024, most))
        EventLog(engine).append(random_events(2_000, seed=8, first=20), now_ms())
        time_ms = now_ms()
        eventually(lambda: heartbeat_ms(settings, pid) < now_ms() - 3_000, within_s=60, what="the worker's outage")
        assert stream_position(engine) < 2_020
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))
        eventually(lambda: stream_position(engine) == 2_020, within_s=60, what="the end of the log")
        eventually(lambda: heartbeat_ms(settings, pid) > time_ms, what="the worker's next word")
    assert list(differences(settings)) == []


def heartbeat_ms(settings: Settings, pid: int) -> int:
    """When the worker last said how it is."""
    return int(json.loads(stream_worker.heartbeat_file(settings, pid).read_text())["time_ms"])


def test_an_outage_is_said_at_its_begin_and_end_alone(caplog: pytest.LogCaptureFixture) -> None:
    outage = stream_worker.Retries()
    refused = OperationalError("SELECT :shopper", {"shopper": "u:secret"}, sqlite3.OperationalError("disk is full"))
    waits = [outage.wait_s(error) for error in (refused, OSError("no space"), ValueError("x"), *[refused] * 20)]
    assert max(waits) <= stream_worker.LONGEST_WAIT_S
    outage.end()
    outage.end()
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.INFO]
    assert "disk is full" in caplog.records[0].message
    assert "secret" not in caplog.text


def test_a_poisoned_event_stops_nobody_else(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    engine = fill(settings, random_events(60, seed=3))
    poison = [event("poison", "u:secret", 10**17), event("poison again", "s:secret", 10**17)]
    EventLog(engine).append([*poison, event("good", "u:1", START_MS)], now_ms())
    worker = stream_worker.Worker(settings)
    worker.share()
    assert worker.log.follow() >= 63
    assert set(worker.log.positions.values()) == {63}
    assert worker.log.rows.left_out == 2
    worker.close()
    assert online(settings, schema.RECENT_VIEW, ["u:1", "s:1", "u:secret"])["u:secret"] is None
    assert online(settings, schema.RECENT_VIEW, ["u:1"])["u:1"] is not None
    assert online(settings, schema.RECENT_VIEW, ["s:1"])["s:1"] is not None
    assert caplog.text.count("cannot be written") == 1
    assert "secret" not in caplog.text


def test_rows_that_an_error_interrupted_are_written_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = fill(settings, random_events(30, seed=4))
    again: list[RowsToWrite] = []
    write_again = stream_worker.Worker.write_again

    def watched(worker: stream_worker.Worker, work: RowsToWrite) -> None:
        again.append(work)
        write_again(worker, work)

    def broken(*_: object) -> None:
        monkeypatch.undo()
        monkeypatch.setattr(stream_worker.Worker, "write_again", watched)
        raise ConnectionError("cut off")

    monkeypatch.setattr("features.store.write_purchases", broken)
    with following(settings):
        eventually(lambda: stream_position(engine) == 30, within_s=30, what="the end of the log")
    assert len(again) == 1 and again[0].recent and again[0].purchases
    assert list(differences(settings)) == []


@contextmanager
def holding(settings: Settings) -> Iterator[None]:
    """Another writer has the online store's SQLite file."""
    connection = sqlite3.connect(settings.home / "online.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def event(event_id: str, shopper: str, time_ms: int) -> NewEvent:
    user, session = (shopper[2:], None) if shopper.startswith("u:") else (None, shopper[2:])
    return NewEvent(
        event_id=event_id, event_type=1, event_time_ms=time_ms, user_id=user, session_id=session, item_id="item-1"
    )
