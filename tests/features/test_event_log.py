"""The event log on both databases."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Engine, text

from features.log.event_log import EVENT_COLUMNS, EventLog, NewEvent, lock_writers
from features.schema import OWN_ITEMS, EventType
from tests.conditions import eventually


@pytest.fixture
def log(engine: Engine) -> EventLog:
    return EventLog(engine)


def event(event_id: str, **fields: object) -> NewEvent:
    values = {
        "event_type": EventType.VIEW,
        "event_time_ms": 1_000,
        "user_id": "ann",
        "session_id": None,
        "item_id": "cup",
    }
    return NewEvent(event_id=event_id, **(values | fields))  # type: ignore[arg-type]


def test_an_event_is_stored_once_and_the_answer_says_so(log: EventLog) -> None:
    assert log.append([event("a"), event("b"), event("a", item_id="pot")], 5) == [True, True, False]
    assert log.append([event("b"), event("c")], 6) == [False, True]
    assert log.append([], 7) == []
    stored = log.read_after(0, 10)
    assert stored["event_id"].to_list() == ["a", "b", "c"]
    assert stored["item_id"].to_list() == ["cup"] * 3
    assert stored["arrival_time_ms"].to_list() == [5, 5, 6]


def test_every_field_comes_back_as_it_went_in(log: EventLog) -> None:
    full = event(
        "ünï 🍵",
        event_type=EventType.PURCHASE,
        session_id="visit 7",
        order_id="o'1",
        quantity=2.5,
        price=0.1,
        query='te"a',
        attribution_token="t",
    )
    log.append([full, event("bare", item_id=None, user_id=None, session_id="s")], 9)
    frame = log.read_after(0, 10)
    assert dict(frame.schema) == EVENT_COLUMNS
    first, second = frame.drop("position").rows(named=True)
    assert first == {
        "event_id": "ünï 🍵",
        "shopper": "u:ann",
        "session_id": "visit 7",
        "item_id": "cup",
        "event_type": 4,
        "event_time_ms": 1_000,
        "arrival_time_ms": 9,
        "order_id": "o'1",
        "quantity": 2.5,
        "price": 0.1,
        "query": 'te"a',
        "attribution_token": "t",
    }
    assert second["shopper"] == "s:s"
    assert [name for name, value in second.items() if value is None] == [
        "item_id",
        "order_id",
        "quantity",
        "price",
        "query",
        "attribution_token",
    ]


def test_a_batch_with_an_event_of_nobody_stores_nothing(log: EventLog) -> None:
    with pytest.raises(ValueError, match="user_id and session_id"):
        log.append([event("a"), event("b", user_id=None)], 1)
    assert log.last_position() == 0


def test_reading_goes_on_where_it_stopped(log: EventLog) -> None:
    log.append([event(str(number)) for number in range(25)], 1)
    seen: list[str] = []
    position = 0
    while (frame := log.read_after(position, 10)).height:
        seen += frame["event_id"].to_list()
        position = frame["position"][-1]
    assert seen == [str(number) for number in range(25)]
    assert position == log.last_position()
    assert [frame.height for frame in log.scan(10)] == [10, 10, 5]


def test_an_event_that_commits_late_has_a_late_position(engine: Engine, log: EventLog) -> None:
    """A transaction that holds the log open makes the next writer wait, so a follower misses neither."""
    log.append([event("first")], 1)
    with engine.connect() as held:
        transaction = held.begin()
        lock_writers(held)
        held.execute(
            text(
                "INSERT INTO events (event_id, shopper, event_type, event_time_ms, arrival_time_ms) "
                "VALUES ('slow', 'u:ann', 1, 1, 1)"
            )
        )
        writer = threading.Thread(target=lambda: log.append([event("quick")], 2))
        writer.start()
        seen = log.read_after(0, 10)["event_id"].to_list()
        assert seen == ["first"]
        position = log.last_position()
        transaction.commit()
    eventually(lambda: log.read_after(0, 10).height == 3, what="the second writer's commit")
    writer.join()
    assert log.read_after(position, 10)["event_id"].to_list() == ["slow", "quick"]


def test_writers_at_once_lose_nothing(log: EventLog) -> None:
    def write(name: str) -> None:
        for batch in range(5):
            log.append([event(f"{name}-{batch}-{number}") for number in range(20)], 1)

    writers = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for writer in writers:
        writer.start()
    seen: list[str] = []
    position = 0
    while len(seen) < 400:
        frame = log.read_after(position, 1_000)
        seen += frame["event_id"].to_list()
        position = frame["position"][-1] if frame.height else position
    for writer in writers:
        writer.join()
    assert len(set(seen)) == 400


def test_recent_events_are_the_newest_by_time_then_position(log: EventLog) -> None:
    log.append(
        [
            event("old", event_time_ms=10),
            event("new", event_time_ms=40),
            event("late", event_time_ms=20),
            event("tie-1", event_time_ms=30, event_type=EventType.CART),
            event("tie-2", event_time_ms=30),
            event("shown", event_time_ms=99, event_type=EventType.IMPRESSION),
            event("sought", event_time_ms=99, event_type=EventType.SEARCH, item_id=None, query="tea"),
            event("visit", event_time_ms=7, user_id=None, session_id="ann"),
        ],
        1,
    )
    recent = log.recent_of(["u:ann", "u:nobody", "s:ann", "u:ann"], 4)
    assert recent["event_id"].to_list() == ["visit", "late", "tie-1", "tie-2", "new"]
    assert recent["shopper"].to_list() == ["s:ann"] + ["u:ann"] * 4
    assert recent.columns == ["shopper", "event_id", "item_id", "event_type", "event_time_ms", "position"]
    assert log.recent_of([], 4).is_empty()


def test_recent_events_of_many_shoppers(log: EventLog) -> None:
    log.append([event(str(number), user_id=f"u{number % 1_200}") for number in range(3_600)], 1)
    recent = log.recent_of([f"u:u{number}" for number in range(1_200)], 2)
    assert recent.height == 2_400
    assert recent.group_by("shopper").len()["len"].unique().to_list() == [2]


def test_purchases_count_baskets_not_lines(log: EventLog) -> None:
    def bought(event_id: str, item_id: str, time_ms: int, order_id: str | None) -> NewEvent:
        return event(event_id, event_type=EventType.PURCHASE, item_id=item_id, event_time_ms=time_ms, order_id=order_id)

    log.append(
        [
            bought("1", "cup", 10, "o1"),
            bought("2", "cup", 10, "o1"),
            bought("3", "pot", 10, "o1"),
            bought("4", "cup", 20, "o2"),
            bought("5", "tea", 30, None),
            bought("6", "pot", 30, None),
            event("7", item_id="seen only"),
        ],
        1,
    )
    rows = log.purchases_of(["u:ann", "u:nobody"]).rows()
    assert rows == [
        ("u:ann", "pot", 2, 10, 30, 3),
        ("u:ann", "cup", 2, 10, 20, 3),
        ("u:ann", "tea", 1, 30, 30, 3),
    ]


def test_purchases_keep_the_items_bought_most_often(log: EventLog) -> None:
    def bought(item: int, order: int) -> NewEvent:
        return event(
            f"{item}-{order}",
            event_type=EventType.PURCHASE,
            item_id=f"{item:04}",
            event_time_ms=order,
            order_id=str(order),
        )

    rare = [bought(item, 1) for item in range(OWN_ITEMS + 10)]
    log.append([*rare, *(bought(OWN_ITEMS + 5, order) for order in range(2, 5))], 1)
    own = log.purchases_of(["u:ann"])
    assert own.height == OWN_ITEMS
    assert own["item_id"][0] == f"{OWN_ITEMS + 5:04}"
    assert own["basket_count"].unique().to_list() == [4]


def test_a_shopper_with_many_events_is_answered_from_the_index(engine: Engine, log: EventLog) -> None:
    if engine.dialect.name == "sqlite":
        newest = "SELECT position FROM events WHERE shopper = 'x' ORDER BY event_time_ms DESC, position DESC"
        plan = f"EXPLAIN QUERY PLAN {newest}"
        with engine.connect() as connection:
            described = " ".join(str(row[-1]) for row in connection.execute(text(plan)))
        assert "events_by_shopper" in described and "TEMP B-TREE" not in described
    log.append([event(str(number), event_time_ms=number) for number in range(30_000)], 1)
    assert log.recent_of(["u:ann"], 3)["event_time_ms"].to_list() == [29_997, 29_998, 29_999]
