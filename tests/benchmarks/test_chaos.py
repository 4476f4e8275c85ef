"""What the chaos bench calls a failure: processes that grew in any of their lives, and acknowledged events that are
gone."""

from __future__ import annotations

from types import SimpleNamespace

from benchmarks.chaos.__main__ import MOST_MORE_BYTES, Held, Leaks, Outcome, lost
from features.database.engine import open_database
from features.log.event_log import EventLog, NewEvent
from features.settings import Settings


def outcome(**facts: object) -> Outcome:
    """Of a run in which all was well but for `facts`."""
    well = {"codes": {"OK": 10}, "event_codes": {"OK": 2}, "tiers": {}, "back_s": {}}
    return Outcome(**(well | facts))  # type: ignore[arg-type]


def test_a_gateway_that_grew_before_it_was_killed_has_grown() -> None:
    leaks = Leaks()
    for held in (Held(1, 50, 0), Held(1, 91, MOST_MORE_BYTES), Held(2, 60, MOST_MORE_BYTES)):
        leaks.note("gateway-1", held)
    leaks.note("gateway-2", Held(3, 50, 0))
    leaks.note("gateway-2", Held(3, 50, MOST_MORE_BYTES + 1))
    found = outcome(grown=leaks.grown()).failures(0.999)
    assert found == ["gateway-1's descriptors has grown by 41", "gateway-2's memory has grown by 67,108,865"]


def test_a_gateway_that_was_started_anew_is_not_held_to_what_the_last_one_had() -> None:
    leaks = Leaks()
    leaks.note("gateway-1", Held(1, 50, 0))
    leaks.note("gateway-1", Held(2, 200, 10 * MOST_MORE_BYTES))
    assert not leaks.grown() and not outcome().failures(0.999)


def test_an_acknowledged_event_that_is_not_in_the_log_is_lost(settings: Settings) -> None:
    engine = open_database(settings.log_url)
    event = NewEvent(event_id="kept", event_type=1, event_time_ms=1, user_id="u", session_id=None, item_id="i")
    EventLog(engine).append([event], 1)
    engine.dispose()
    missing = lost(SimpleNamespace(settings=settings), {"kept", "gone"})  # type: ignore[arg-type]
    assert missing == {"gone"}
    assert outcome(acknowledged=2, lost=1).failures(0.999) == ["1 of 2 acknowledged events are lost"]
