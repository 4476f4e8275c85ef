"""What becomes of events when the database, the disk, the clock or an event itself is at fault: nothing acknowledged is
lost, the rest goes on when it is over, and the log tells it once."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import pytest
from sqlalchemy import Engine, text

from braid.v1 import event_pb2 as pb
from features.database.engine import open_database
from features.log.event_log import EventLog, NewEvent, Outcome, lock_writers
from features.settings import Settings
from server.deadline import Deadline
from server.errors import DeadlinePassed, Overloaded, Unavailable
from server.record.event_writer import EventWriter
from tests import postgres
from tests.conditions import eventually
from tests.conftest import NewSettings
from tests.features.shops import NOBODY_ERASED
from tests.server.client import RunningGateway, assert_refused, gateway, new_event
from tests.server.test_access import outcomes

VIEW = pb.EVENT_TYPE_VIEW
STORED = pb.EventStatus.CODE_STORED


def event(event_id: str) -> NewEvent:
    return NewEvent(event_id=event_id, event_type=1, event_time_ms=1_000, user_id="ann", session_id=None, item_id="cup")


def stored_ids(settings: Settings) -> set[str]:
    engine = open_database(settings.log_url)
    found = {event_id for frame in EventLog(engine).scan() for event_id in frame["event_id"]}
    engine.dispose()
    return found


def lines(under_test: RunningGateway, level: str) -> list[str]:
    """What the event writer has logged."""
    parsed = [json.loads(line) for line in under_test.log.splitlines()]
    return [
        line["message"] for line in parsed if line["module"] == "server.record.event_writer" and line["level"] == level
    ]


class Load:
    """Four storefronts that write one event after the other."""

    def __init__(self, under_test: RunningGateway) -> None:
        self.acknowledged: list[str] = []
        self.refused: list[grpc.RpcError] = []
        self._client = under_test.client
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write) for _ in range(4)]

    def _write(self) -> None:
        while not self._stop.is_set():
            event = new_event(VIEW, "i", user_id="secret-person", session_id="secret-visit")
            try:
                codes = self._client.write(event)
            except grpc.RpcError as error:
                self.refused.append(error)
            else:
                assert codes == [STORED]
                self.acknowledged.append(event.event_id)

    def goes_on(self, more: int = 20) -> None:
        """Waits for further acknowledgements."""
        before = len(self.acknowledged)
        eventually(lambda: len(self.acknowledged) >= before + more, within_s=60, what="further acknowledgements")

    def fails(self, more: int = 20) -> None:
        """Waits for further refusals."""
        before = len(self.refused)
        eventually(lambda: len(self.refused) >= before + more, within_s=60, what="further refusals")

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the storefronts."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def assert_told_once(under_test: RunningGateway, load: Load) -> None:
    """Nothing acknowledged is lost, refusals say what to do, and the log has one line for each end of the outage."""
    assert set(load.acknowledged) <= stored_ids(under_test.settings)
    assert {error.code() for error in load.refused} == {grpc.StatusCode.UNAVAILABLE}
    assert all("send the same events again" in error.details() for error in load.refused)
    begun, ended = lines(under_test, "ERROR"), lines(under_test, "WARNING")
    assert len(begun) == 1 and begun[0].startswith("the event log cannot be written: ")
    assert len(ended) == 1 and ended[0].startswith("the event log is written again, after ")
    assert "secret" not in under_test.log


def test_a_locked_database(new_settings: NewSettings) -> None:
    with gateway(new_settings(), write_budget_ms="2000") as under_test:
        with Load(under_test) as load:
            load.goes_on()
            other = sqlite3.connect(under_test.settings.home / "braid.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            load.fails(4)
            other.execute("COMMIT")
            other.close()
            load.goes_on()
        assert_told_once(under_test, load)


def test_callers_in_a_hurry_are_told_of_their_deadline_and_no_outage(new_settings: NewSettings) -> None:
    with gateway(new_settings()) as under_test:
        request = pb.WriteEventsRequest(events=[new_event(VIEW, "i", user_id="u")])
        engine = open_database(under_test.settings.log_url)
        write = under_test.client.events.WriteEvents
        with engine.begin() as connection:
            lock_writers(connection)
            calls = [partial(write, request, timeout=0.1 + 0.0003 * number) for number in range(60)]
            codes = [outcomes(call) for call in calls]
        engine.dispose()
        assert codes == [[grpc.StatusCode.DEADLINE_EXCEEDED]] * 60
        assert lines(under_test, "ERROR") == []


def test_a_disk_that_takes_no_more(new_settings: NewSettings) -> None:
    """A limit on the size of the process's files stands in for a full disk."""
    with gateway(new_settings()) as under_test:
        pid = under_test.process.pid
        with Load(under_test) as load:
            load.goes_on()
            _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (64 * 1024, most))
            load.fails()
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))
            load.goes_on()
        assert_told_once(under_test, load)


def test_postgresql_that_crashes_under_load_and_comes_back(new_settings: NewSettings) -> None:
    with TemporaryDirectory(prefix="braid-postgres-") as name:
        cluster = postgres.new_cluster(Path(name))
        with ExitStack() as crashing:
            crashing.enter_context(postgres.serving(cluster, stop_signal=signal.SIGQUIT))
            with gateway(new_settings(database_url=cluster.url)) as under_test, Load(under_test) as load:
                load.goes_on()
                crashing.close()
                load.fails()
                with postgres.serving(cluster):
                    load.goes_on()
                    load.stop()
                    assert_told_once(under_test, load)


def test_requests_that_are_no_messages_are_refused_and_the_next_is_taken(new_settings: NewSettings) -> None:
    with gateway(new_settings()) as under_test:
        raw = pb.WriteEventsRequest(events=[new_event(VIEW, "i", user_id="not UTF-8: AA")]).SerializeToString()
        call = under_test.client.channel.unary_unary("/braid.v1.EventService/WriteEvents")
        for _ in range(20):
            assert_refused(lambda: call(raw.replace(b"AA", b"\xff\xfe"), timeout=10), "request")
        assert "Traceback" not in under_test.log and "ERROR" not in under_test.log
        assert under_test.client.write(new_event(VIEW, "i", user_id="u")) == [STORED]


@pytest.fixture
def writer(engine: Engine) -> Iterator[EventWriter]:
    writer = EventWriter(engine, NOBODY_ERASED, max_events=1_000, budget_s=30)
    yield writer
    writer.close()


def ids(engine: Engine) -> list[str]:
    return EventLog(engine).read_after(0, 1_000)["event_id"].to_list()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("server.")]


BAD = {
    "a lone surrogate": {"item_id": "\ud800"},
    "a number beyond 64 bits": {"event_time_ms": 2**70},
    "nobody's": {"user_id": None},
}


@pytest.mark.parametrize("fault", BAD)
async def test_an_event_that_the_database_refuses_is_refused_alone(
    engine: Engine, writer: EventWriter, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"{number:02}" for number in range(23)]
    events = [event(name) for name in names]
    for place in (4, 17):
        events[place] = replace(events[place], **BAD[fault])
    calls = [events[:10], [events[10]], events[11:]]
    waiting = [writer.begin(call) for call in calls]
    outcomes = [outcome for commit in waiting for outcome in await writer.finish(commit, Deadline())]
    good = [name for name in names if name not in ("04", "17")]
    assert [name for name, outcome in zip(names, outcomes, strict=True) if outcome is Outcome.STORED] == good
    assert outcomes[4] is outcomes[17] is Outcome.REFUSED
    assert sorted(ids(engine)) == good
    assert len(told(caplog)) == 1
    assert await writer.write([event("later")], Deadline()) == [Outcome.STORED]


async def test_a_nul_that_postgresql_refuses_is_refused_alone(postgres_url: str) -> None:
    engine = open_database(postgres_url)
    writer = EventWriter(engine, NOBODY_ERASED, max_events=10, budget_s=30)
    events = [event("a"), replace(event("b"), item_id="\0"), event("c"), event("a")]
    outcomes = await writer.write(events, Deadline())
    assert outcomes == [Outcome.STORED, Outcome.REFUSED, Outcome.STORED, Outcome.DUPLICATE]
    writer.close()
    engine.dispose()


async def test_a_full_database_file_stores_all_of_a_batch_or_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'braid.db'}")
    writer = EventWriter(engine, NOBODY_ERASED, max_events=10_000, budget_s=30)
    with engine.connect() as connection:  # the pool's one connection, which the writer takes next
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        connection.execute(text(f"PRAGMA max_page_count = {pages + 20}"))
    acknowledged: list[str] = []
    with pytest.raises(Unavailable, match="send the same events again"):
        for number in range(1_000):
            batch = [event(f"{number}-{place}") for place in range(20)]
            await writer.write(batch, Deadline())
            acknowledged += [one.event_id for one in batch]
    for _ in range(3):
        with pytest.raises(Unavailable):
            await writer.write(batch, Deadline())
    assert acknowledged and ids(engine) == acknowledged[:1_000]
    with engine.connect() as connection:
        connection.execute(text("PRAGMA max_page_count = 100000"))
    assert await writer.write(batch, Deadline()) == [Outcome.STORED] * 20
    begun, ended = told(caplog)
    assert "database or disk is full" in begun and "is written again" in ended
    writer.close()
    engine.dispose()


async def test_a_clock_that_steps_back_stops_nothing_and_is_told_once(
    engine: Engine, writer: EventWriter, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_s = [1_000_000, 1_000_001, 900_000, 900_001, 900_002]
    for number, now_s in enumerate(clock_s):
        monkeypatch.setattr(time, "time_ns", lambda now_s=now_s: now_s * 1_000_000_000)
        assert await writer.write([event(str(number))], Deadline()) == [Outcome.STORED]
    stored = EventLog(engine).read_after(0, 10)
    assert stored["event_id"].to_list() == ["0", "1", "2", "3", "4"]
    assert stored["arrival_time_ms"].to_list() == [1_000 * now_s for now_s in clock_s]
    assert len(told(caplog)) == 1 and "stepped back by 100001.0 s" in told(caplog)[0]


async def test_a_request_of_more_events_than_may_wait_is_taken_when_none_does(engine: Engine) -> None:
    writer = EventWriter(engine, NOBODY_ERASED, max_events=3, budget_s=20)
    with engine.begin() as connection:
        lock_writers(connection)
        large = asyncio.ensure_future(writer.write([event(f"event-{number}") for number in range(5)], Deadline()))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="5 events wait"):
            await writer.write([event("one more")], Deadline())
    assert await large == [Outcome.STORED] * 5
    assert await writer.write([event("one more")], Deadline()) == [Outcome.STORED]
    writer.close()


async def test_a_caller_whose_deadline_passes_is_told_so_and_the_queue_forgets_them(
    engine: Engine, writer: EventWriter
) -> None:
    with engine.begin() as connection:
        lock_writers(connection)
        first = writer.begin([event("first")])
        with pytest.raises(DeadlinePassed):
            await writer.write([event("given up")] * 999, Deadline.after(0.05))
        await asyncio.wait_for(writer.room(999), 5)
    assert await writer.finish(first, Deadline()) == [Outcome.STORED]
    assert await writer.write([event("next")], Deadline()) == [Outcome.STORED]
    assert ids(engine) == ["first", "next"]
