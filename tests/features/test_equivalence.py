"""Whatever is killed, whenever: the online rows equal those that a batch build makes from the log."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
import redis

from benchmarks.equivalence import differences
from features import schema
from features.log.event_log import EventLog, NewEvent
from features.offline.build import build
from features.online import current_rows
from features.settings import Settings
from features.shop.users import UserProfile, Users
from features.stream import worker as stream_worker
from features.stream.shares import share_of
from features.stream.stream_positions import stream_position
from tests.conditions import eventually
from tests.features.shops import HOUR_MS, START_MS, fill, now_ms, online, random_events, sign_in
from tests.features.workers import workers

NewSettings = Callable[..., Settings]
SHOPPERS = 40
ROUNDS = 4


@pytest.fixture(params=["sqlite", "sqlite-redis", "postgresql-redis", "postgresql-redis-3", "postgresql-sqlite-3"])
def profile(request: pytest.FixtureRequest, new_settings: NewSettings) -> tuple[Settings, int]:
    """A shop and how many workers it has."""
    overrides = {}
    if "postgresql" in request.param:
        overrides["database_url"] = request.getfixturevalue("postgres_url")
    if "redis" in request.param:
        url = request.getfixturevalue("redis_url")
        host, port = url.split(":")
        with redis.Redis(host=host, port=int(port)) as client:
            client.flushdb()
        overrides |= {"online_store": "redis", "redis_url": url}
    return new_settings(**overrides), 3 if request.param.endswith("-3") else 1


@pytest.mark.timeout(180)
def test_rows_equal_a_batch_build_after_random_kills(profile: tuple[Settings, int]) -> None:
    settings, count = profile
    draw = random.Random(f"{settings.online_store} {count}")
    engine = fill(settings, [])
    log, users = EventLog(engine), Users(engine)
    anonymous = [str(number) for number in range(SHOPPERS) if number % 2]
    draw.shuffle(anonymous)
    with workers(settings, count) as running:
        for part in range(ROUNDS):
            events = random_events(60, seed=part, shoppers=SHOPPERS, first=60 * part)
            for start in range(0, 60, 20):
                log.append(events[start : start + 20], now_ms())
                log.append(draw.sample(events[: start + 20], 5), now_ms())  # a storefront that sends again
                person, time_ms = str(draw.randrange(2 * SHOPPERS)), at(draw.randrange(60))
                sign_in(engine, anonymous.pop(), person, time_ms)
            users.upsert([UserProfile(user_id=str(draw.randrange(SHOPPERS)), age=18 + part)])
            if draw.random() < 0.5:
                seen = stream_position(engine)
                eventually(lambda seen=seen: stream_position(engine) > seen, within_s=60, what="some progress")  # type: ignore[misc]
            running.kill(draw.randrange(count))
        eventually(lambda: stream_position(engine) == log.last_position(), within_s=60, what="the end of the log")
        eventually(lambda: not list(differences(settings)), within_s=20, every_s=0.5, what="the last profile")
    assert list(differences(settings)) == []
    engine.dispose()


def test_a_difference_is_found(settings: Settings) -> None:
    engine = fill(settings, random_events(40, seed=1))
    build(settings)
    assert list(differences(settings)) == []
    EventLog(engine).append(random_events(1, seed=2, first=40), now_ms())
    assert len(list(differences(settings))) == 1


@pytest.fixture
def worker(settings: Settings) -> Iterator[stream_worker.Worker]:
    """A worker that takes one step when it is told to."""
    fill(settings, [])
    worker = stream_worker.Worker(settings)
    worker.share()
    yield worker
    worker.close()


def test_a_session_that_signs_in_brings_its_events_along(settings: Settings, worker: stream_worker.Worker) -> None:
    engine = fill(settings, [seen("before", 1, session_id="S"), bought("lamp", 2, session_id="S")])
    worker.log.follow()
    assert online(settings, schema.PURCHASES_VIEW, ["s:S"])["s:S"] is not None
    assert share_of("s:S") != share_of("u:U")
    sign_in(engine, "S", "U", at(3))
    worker.log.follow()
    row = online(settings, schema.RECENT_VIEW, ["u:U"])["u:U"]
    assert row is not None and row["item_ids"] == ["before", "lamp", "item-0"]
    assert online(settings, schema.PURCHASES_VIEW, ["u:U"])["u:U"]["item_ids"] == ["lamp"]  # type: ignore[index]
    for view in (schema.RECENT_VIEW, schema.PURCHASES_VIEW):
        assert online(settings, view, ["s:S"])["s:S"] is None
    assert list(differences(settings)) == []


def test_a_session_keeps_what_it_did_after_it_signed_in(settings: Settings, worker: stream_worker.Worker) -> None:
    engine = fill(settings, [bought("lamp", 1, session_id="S"), seen("after", 9, session_id="S")])
    worker.log.follow()
    sign_in(engine, "S", "U", at(3))
    worker.log.follow()
    row = online(settings, schema.RECENT_VIEW, ["s:S"])["s:S"]
    assert row is not None and row["item_ids"] == ["after"]
    assert online(settings, schema.PURCHASES_VIEW, ["s:S"])["s:S"] is None
    assert list(differences(settings)) == []


def test_a_build_removes_the_rows_of_a_session_that_signed_in_before_it(
    settings: Settings, worker: stream_worker.Worker
) -> None:
    engine = fill(settings, [seen("before", 1, session_id="S"), seen("other", 1, session_id="T")])
    worker.log.follow()
    worker.save()
    sign_in(engine, "S", "U", at(3))
    build(settings)
    assert stream_position(engine) == 3
    assert list(differences(settings)) == []


def test_a_build_leaves_a_session_that_signs_in_meanwhile_to_the_stream(
    settings: Settings, worker: stream_worker.Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = fill(settings, [seen("before", 1, session_id="S")])
    written = current_rows.write_online

    def meanwhile(*arguments: object) -> None:
        sign_in(engine, "S", "U", at(3))
        worker.log.follow()
        written(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(current_rows, "write_online", meanwhile)
    build(settings)
    assert list(differences(settings)) == []


def test_late_events_take_their_place_in_time(settings: Settings, worker: stream_worker.Worker) -> None:
    engine = fill(settings, [])
    for hour in (5, 3, 4, 1, 1):
        EventLog(engine).append([seen(f"item {hour}", hour, session_id="S")], now_ms())
        worker.log.follow()
    row = online(settings, schema.RECENT_VIEW, ["s:S"])["s:S"]
    assert row is not None and row["item_ids"] == ["item 1", "item 3", "item 4", "item 5"]
    assert list(differences(settings)) == []


def at(hour: int) -> int:
    return START_MS + hour * HOUR_MS


def seen(item_id: str, hour: int, kind: schema.EventType = schema.EventType.VIEW, **shopper: str) -> NewEvent:
    names: dict[str, str | None] = {"user_id": None, "session_id": None}
    return NewEvent(
        event_id=f"{item_id} {hour}", event_type=kind, event_time_ms=at(hour), item_id=item_id, **(names | shopper)
    )


def bought(item_id: str, hour: int, **shopper: str) -> NewEvent:
    return seen(item_id, hour, schema.EventType.PURCHASE, **shopper)
