"""What a moment could see: events that had arrived, and those of a session before and after its sign-in."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from rich.progress import Progress
from sqlalchemy import Engine

from features.log.event_log import EventLog, NewEvent
from features.offline.build import write_events
from features.offline.point_in_time import OfflineEvents
from features.schema import EventType

T_MS = 1_790_000_000_000
DAY_MS = 86_400_000
VIEW, PURCHASE = EventType.VIEW, EventType.PURCHASE


def event(
    event_id: str, kind: EventType, at_ms: int, *, user_id: str | None = "anna", session_id: str = ""
) -> NewEvent:
    return NewEvent(
        event_id=event_id,
        event_type=kind,
        event_time_ms=at_ms,
        user_id=user_id,
        session_id=session_id or None,
        item_id=f"item of {event_id}",
    )


@pytest.fixture
def offline(engine: Engine, tmp_path: Path) -> Path:
    """Anna buys; a backfill brings an older purchase a day late; she signs in during a session on T + 100."""
    log = EventLog(engine)
    log.append([event("on time", PURCHASE, T_MS)], T_MS + 40)
    log.append([event("anonymous", VIEW, T_MS + 50, user_id=None, session_id="s")], T_MS + 60)
    log.append([event("signs in", VIEW, T_MS + 90, session_id="s")], T_MS + 100)
    log.append([event("backfill", PURCHASE, T_MS - DAY_MS), event("backfilled view", VIEW, T_MS + 1)], T_MS + DAY_MS)
    with Progress(disable=True) as progress:
        write_events(log, tmp_path, progress)
    return tmp_path / "events.parquet"


def rows(offline: Path, key: str, at_ms: int) -> tuple[list[str], list[str]]:
    """Ids of the recent events and of the items bought, as the row of `key` had them."""
    recent, purchases = OfflineEvents(offline, ["u:anna", "s:s"]).rows_at([key], [at_ms])
    return (
        recent["event_ids"].explode().to_list() if recent.height else [],
        purchases["item_ids"].explode().to_list() if purchases.height else [],
    )


def test_an_event_is_seen_from_its_arrival_on(offline: Path) -> None:
    assert rows(offline, "u:anna", T_MS + 39) == ([], [])
    assert rows(offline, "u:anna", T_MS + 40) == (["on time"], ["item of on time"])


def test_a_late_backfill_takes_its_place_once_it_is_there_and_not_before(offline: Path) -> None:
    before = rows(offline, "u:anna", T_MS + DAY_MS - 1)
    assert before == (["on time", "anonymous", "signs in"], ["item of on time"])
    events, bought = rows(offline, "u:anna", T_MS + DAY_MS)
    assert events == ["backfill", "on time", "backfilled view", "anonymous", "signs in"]
    assert sorted(bought) == ["item of backfill", "item of on time"]


def test_what_a_session_did_is_the_persons_once_they_have_signed_in(offline: Path) -> None:
    assert rows(offline, "s:s", T_MS + 59)[0] == []
    assert rows(offline, "s:s", T_MS + 60)[0] == ["anonymous"]
    assert rows(offline, "u:anna", T_MS + 99)[0] == ["on time"]
    assert rows(offline, "u:anna", T_MS + 100)[0] == ["on time", "anonymous", "signs in"]
    assert rows(offline, "s:s", T_MS + 100)[0] == []


def test_changes_are_the_moments_at_which_a_row_became_another(offline: Path) -> None:
    events = OfflineEvents(offline, ["u:anna", "s:s"])
    assert events.changes("u:anna", T_MS, T_MS + DAY_MS) == [T_MS + 40, T_MS + 100, T_MS + DAY_MS]
    assert events.changes("u:anna", T_MS + 40, T_MS + 99) == []
    assert events.changes("s:s", T_MS, T_MS + DAY_MS) == [T_MS + 60, T_MS + 100]


def test_rows_are_those_of_the_log_where_everything_has_arrived(offline: Path, engine: Engine) -> None:
    recent, purchases = OfflineEvents(offline, ["u:anna"]).rows_at(["u:anna"], [T_MS + 9 * DAY_MS])
    log = EventLog(engine)
    assert recent["event_ids"].to_list() == [log.recent_of(["u:anna"], 50)["event_id"].to_list()]
    assert purchases["item_ids"].to_list() == [log.purchases_of(["u:anna"])["item_id"].to_list()]


def test_a_key_without_events_has_no_row(offline: Path) -> None:
    recent, purchases = OfflineEvents(offline, ["u:nobody"]).rows_at(["u:nobody"], [T_MS])
    assert isinstance(recent, pl.DataFrame) and recent.is_empty() and purchases.is_empty()
