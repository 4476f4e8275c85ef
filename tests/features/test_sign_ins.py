"""Signing in gives a person what the session did until then, whatever the order of arrival, one by one or imported."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import Engine, text

from features.database.engine import open_database
from features.log.event_log import EventLog, NewEvent
from features.schema import EventType
from features.settings import Settings
from tests.features.import_shop import Shop

MAPPING = {
    "events": {
        "type": {"constant": "view"},
        "user": "user_id",
        "session": "session_id",
        "item": "item_id",
        "time": {"column": "event_time_ms", "unit": "ms"},
        "event_id": "event_id",
    },
    "rules": {"bursts": {"per_minute": None, "per_hour": None}},
}
START_MS = 1_700_000_000_000


@pytest.fixture
def log(engine: Engine) -> EventLog:
    return EventLog(engine)


def event(event_id: str, time_ms: int, user: str | None = None, session: str | None = "visit") -> NewEvent:
    return NewEvent(
        event_id=event_id,
        event_type=EventType.VIEW,
        event_time_ms=START_MS + time_ms,
        user_id=user,
        session_id=session,
        item_id="cup",
    )


def shoppers(log: EventLog) -> dict[str, str]:
    """Whose each event is."""
    rows = log.read_after(0, 100_000)
    return dict(zip(rows["event_id"], rows["shopper"], strict=True))


def sign_ins(engine: Engine) -> list[tuple[object, ...]]:
    query = "SELECT session_id, shopper, through_ms, position FROM sign_ins ORDER BY session_id"
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def signing_events(engine: Engine) -> list[tuple[object, ...]]:
    query = "SELECT s.session_id, s.shopper, s.through_ms, e.event_id FROM sign_ins s JOIN events e USING (position)"
    with engine.connect() as connection:
        return sorted(tuple(row) for row in connection.execute(text(query)))


def test_what_the_session_did_until_the_sign_in_is_the_persons(engine: Engine, log: EventLog) -> None:
    log.append([event("before", 1), event("other visit", 1, session="other")], 1)
    log.append([event("in", 5, "ann")], 2)
    log.append([event("late", 4), event("same time", 5), event("after", 6)], 3)
    assert shoppers(log) == {
        "before": "u:ann",
        "other visit": "s:other",
        "in": "u:ann",
        "late": "u:ann",
        "same time": "u:ann",
        "after": "s:visit",
    }
    assert sign_ins(engine) == [("visit", "u:ann", START_MS + 5, 3)]
    assert log.read_after(0, 10)["session_id"].to_list() == ["visit", "other"] + ["visit"] * 4


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_one_batch_holds_the_session_and_its_sign_in_in_any_order(log: EventLog, order: Sequence[int]) -> None:
    events = [event("before", 1), event("in", 5, "ann"), event("after", 6)]
    log.append([events[place] for place in order], 1)
    assert shoppers(log) == {"before": "u:ann", "in": "u:ann", "after": "s:visit"}


def test_a_second_person_in_the_session_joins_nothing(engine: Engine, log: EventLog) -> None:
    log.append([event("ann", 5, "ann"), event("bob", 9, "bob")], 1)
    log.append([event("between", 7), event("cid", 1, "cid")], 2)
    assert shoppers(log) == {"ann": "u:ann", "bob": "u:bob", "between": "s:visit", "cid": "u:cid"}
    assert [row[1] for row in sign_ins(engine)] == ["u:ann"]


def test_an_event_that_was_there_already_signs_nobody_in(engine: Engine, log: EventLog) -> None:
    log.append([event("a", 1)], 1)
    assert log.append([event("a", 1, "ann")], 2) == [False]
    assert shoppers(log) == {"a": "s:visit"} and sign_ins(engine) == []


def made_up(seed: int, count: int = 400) -> list[NewEvent]:
    """Events of few persons in few sessions, their times out of order."""
    draw = random.Random(seed)
    return [
        event(
            f"{seed}-{number:04}",
            draw.randrange(200),
            draw.choice([None, None, None, "ann", "bob"]),
            draw.choice([None, *(f"visit {visit}" for visit in range(40))]) if draw.random() < 0.9 else None,
        )
        for number in range(count)
    ]


def somebodys(events: Sequence[NewEvent]) -> list[NewEvent]:
    return [event for event in events if event.user_id or event.session_id]


def by_the_rule(events: Sequence[NewEvent]) -> dict[str, str]:
    """Whose each event is, by the rule alone; `events` in log order."""
    first: dict[str, NewEvent] = {}
    for event in events:
        if event.user_id and event.session_id:
            first.setdefault(event.session_id, event)
    found = {}
    for event in events:
        signed = first.get(event.session_id or "")
        if event.user_id:
            found[event.event_id] = f"u:{event.user_id}"
        elif signed and event.event_time_ms <= signed.event_time_ms:
            found[event.event_id] = f"u:{signed.user_id}"
        else:
            found[event.event_id] = f"s:{event.session_id}"
    return found


@pytest.mark.parametrize("largest_batch", [1, 7, 1_000])
def test_however_the_events_are_cut_into_batches_the_rule_holds(log: EventLog, largest_batch: int) -> None:
    events = somebodys(made_up(1))
    draw = random.Random(largest_batch)
    start = 0
    while start < len(events):
        end = start + draw.randint(1, largest_batch)
        log.append(events[start:end], 1)
        start = end
    assert shoppers(log) == by_the_rule(events)


@pytest.mark.parametrize("known", [0, 150])
def test_an_import_does_what_appending_the_same_events_would(
    tmp_path: Path, database_url: str, known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.importing.events.BATCH_ROWS", 50)
    shop = Shop(Settings(home=tmp_path / "home", database_url=database_url), tmp_path)
    live = somebodys(made_up(2, known))
    imported = somebodys(made_up(3))
    engine = open_database(database_url)
    EventLog(engine).append(live, 1)
    names = ("event_id", "user_id", "session_id", "item_id", "event_time_ms")
    rows = [{name: getattr(event, name) for name in names} for event in [*live[:50], *imported]]
    file = shop.write("rows.jsonl", "\n".join(json.dumps(row) for row in rows))
    section = shop.load(file, shop.mapping(MAPPING)).sections[0]
    assert (section.new, section.already_stored) == (len(imported), len(live[:50]))
    stored = shop.events()
    given = {event.event_id: event for event in [*live, *imported]}
    in_log_order = [given[event_id] for event_id in stored["event_id"]]
    assert dict(zip(stored["event_id"], stored["shopper"], strict=True)) == by_the_rule(in_log_order)

    second = open_database(f"sqlite:///{tmp_path / 'second.db'}")
    again = EventLog(second)
    for one in in_log_order:
        again.append([one], 1)
    own = ["position", "arrival_time_ms"]  # an event that is passed over may leave a gap, and the file's arrived before
    assert again.read_after(0, 10_000).drop(own).equals(stored.drop(own))
    assert signing_events(second) == signing_events(engine) != []
    engine.dispose()
    second.dispose()


def test_an_import_of_sessions_without_an_anonymous_event_records_who_signed_in(
    tmp_path: Path, database_url: str
) -> None:
    shop = Shop(Settings(home=tmp_path / "home", database_url=database_url), tmp_path)
    frame = pl.DataFrame(
        {
            "event_id": ["1", "2", "3"],
            "user_id": ["ann", "bob", None],
            "session_id": ["a", "a", "c"],
            "item_id": ["cup"] * 3,
            "event_time_ms": [START_MS + 2, START_MS + 1, START_MS],
        }
    )
    file = tmp_path / "rows.parquet"
    frame.write_parquet(file)
    assert shop.load(file, shop.mapping(MAPPING)).sections[0].new == 3
    engine = open_database(database_url)
    assert sign_ins(engine) == [("a", "u:bob", START_MS + 1, 2)]
    EventLog(engine).append([event("late", 0, session="a")], 1)
    assert shoppers(EventLog(engine))["late"] == "u:bob"
    engine.dispose()
