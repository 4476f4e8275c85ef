"""What comes with a request counts at once and leaves no trace: in Recommend, Rank and GetInterests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from braid.v1 import event_pb2
from braid.v1 import recommendation_pb2 as rec
from features.database.engine import open_database
from features.database.models import Event
from features.schema import RECENT_EVENTS
from tests.conditions import eventually
from tests.server.client import Client, RunningGateway, ids, new_event
from tests.server.test_questions import views

VIEW = event_pb2.EVENT_TYPE_VIEW
ITEMS = ["music-01", "garden-01", "kitchen-01"]
Ask = Callable[..., Any]


def recommend(client: Client, **fields: Any) -> rec.RecommendResponse:
    return client.recommend(**fields)


def rank(client: Client, **fields: Any) -> rec.RankResponse:
    return client.recommendations.Rank(rec.RankRequest(item_ids=ITEMS, **fields), timeout=10)


def interests(client: Client, **fields: Any) -> rec.GetInterestsResponse:
    return client.recommendations.GetInterests(rec.GetInterestsRequest(**fields), timeout=10)


every_call = pytest.mark.parametrize("ask", [recommend, rank, interests])


def told(answer: Any) -> list[tuple[str, float]]:
    """What an answer says, without the moment at which it was made."""
    if isinstance(answer, rec.GetInterestsResponse):
        return [("/".join(found.category_path), found.strength) for found in [*answer.long_term, *answer.current]]
    return [(result.item_id, result.score) for result in answer.results]


def same(left: Any, right: Any) -> bool:
    """Whether two answers say the same, a moment apart."""
    one, other = sorted(told(left)), sorted(told(right))
    if left.tier != right.tier or [name for name, _ in one] != [name for name, _ in other]:
        return False
    return all(abs(a - b) < 0.02 for (_, a), (_, b) in zip(one, other, strict=True))


@every_call
def test_recent_events_count_in_their_own_request_alone(
    ask: Ask, client: Client, released_shop: RunningGateway
) -> None:
    session_id, visit = uuid4().hex, views("Music")
    assert ask(client, session_id=session_id).tier == rec.TIER_POPULAR
    assert ask(client, session_id=session_id, recent_events=visit).tier == rec.TIER_RECENT
    known = ask(client, user_id="user-12")
    assert not same(ask(client, user_id="user-12", recent_events=visit), known)
    marker = new_event(VIEW, "music-01", session_id=uuid4().hex)
    client.write(marker)  # what was to be written before it is written by now
    engine = open_database(released_shop.settings.log_url)
    with engine.connect() as connection:

        def stored(events: list[event_pb2.Event]) -> int:
            event_ids = [event.event_id for event in events]
            return connection.scalar(select(func.count()).where(Event.event_id.in_(event_ids))) or 0

        assert stored([marker]) == 1 and stored(visit) == 0
    engine.dispose()
    assert ask(client, session_id=session_id).tier == rec.TIER_POPULAR
    assert same(ask(client, user_id="user-12"), known)


@every_call
def test_an_event_that_is_written_and_sent_along_counts_once(ask: Ask, client: Client) -> None:
    session_id = uuid4().hex
    written = [new_event(VIEW, f"music-{number:02}", session_id=session_id) for number in range(3)]
    written.append(new_event(VIEW, "garden-05", session_id=session_id))
    sent_along = ask(client, session_id=session_id, recent_events=written)
    client.write(*written)

    def stored() -> Any:
        found = ask(client, session_id=session_id)
        return found if found.tier == rec.TIER_RECENT and same(found, sent_along) else None

    alone = eventually(stored, within_s=10, what="the written events in the answers")
    assert same(ask(client, session_id=session_id, recent_events=written), alone)
    again = [event_pb2.Event(event_id=uuid4().hex, type=VIEW, item_id="garden-05", event_time=written[-1].event_time)]
    assert not same(ask(client, session_id=session_id, recent_events=again * 8 + views("Garden")), alone)


@every_call
def test_the_session_alone_the_person_alone_and_both_together_are_enough(ask: Ask, client: Client) -> None:
    session_id = uuid4().hex
    client.write(*(new_event(VIEW, f"kitchen-{number:02}", session_id=session_id) for number in range(6)))
    session = eventually(
        lambda: (found := ask(client, session_id=session_id)).tier == rec.TIER_RECENT and found, what="the session"
    )
    person = ask(client, user_id="user-15")
    both = ask(client, user_id="user-15", session_id=session_id)
    assert person.tier == both.tier == rec.TIER_FULL
    assert not same(both, person) and not same(both, session)


def test_the_page_and_the_device_are_taken_by_rank(client: Client) -> None:
    page = rec.Context(page_item_id="music-03", device="mobile", country="GB")
    answer = rank(client, session_id=uuid4().hex, context=page)
    assert answer.tier == rec.TIER_RECENT and ids(answer.results) == ITEMS


@every_call
def test_a_vector_that_the_events_have_outrun_is_left_out_and_the_answer_says_so(ask: Ask, client: Client) -> None:
    user_id, session_id = "user-12", uuid4().hex
    client.write(new_event(VIEW, "garden-05", session_id=session_id))
    later = [new_event(VIEW, f"music-{number % 5:02}") for number in range(RECENT_EVENTS)]
    for fits in ({"session_id": session_id, "recent_events": later[1:]}, {"recent_events": later}):
        answer = ask(client, user_id=user_id, **fits)
        assert not answer.long_term_stale and answer.tier == rec.TIER_FULL

    def outrun() -> Any:
        answer = ask(client, user_id=user_id, session_id=session_id, recent_events=later)
        return answer if answer.long_term_stale else None

    assert eventually(outrun, within_s=10, what="the written event, beyond the window").tier == rec.TIER_RECENT
