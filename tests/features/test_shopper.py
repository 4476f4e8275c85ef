"""Person, session and request become one shopper: events once, in time, and no stale vector."""

from __future__ import annotations

import numpy as np
import pytest

from features.inputs.shopper import (
    Context,
    Events,
    LongInterest,
    Profile,
    Purchase,
    Purchases,
    ShopperEvent,
    ShopperFeatures,
    ShopperQuery,
    merge,
)
from features.schema import RECENT_EVENTS, EventType

NOW_MS = 10_000_000


def seen(number: int, time_ms: int, kind: EventType = EventType.VIEW) -> ShopperEvent:
    return ShopperEvent(f"e{number}", f"item-{number}", kind, time_ms)


def query(*events: ShopperEvent, **context: str | int) -> ShopperQuery:
    return ShopperQuery(
        user_id="u",
        session_id="s",
        now_ms=NOW_MS,
        recent_events=events,
        context=Context(**context),  # type: ignore[arg-type]
    )


def encoded(through_ms: int) -> LongInterest:
    return LongInterest(np.ones(4, np.float32), through_ms)


def test_person_session_and_request_are_merged_by_time_and_counted_once() -> None:
    person = ShopperFeatures(recent=Events.of([seen(1, 100), seen(3, 300)]))
    session = ShopperFeatures(recent=Events.of([seen(2, 200), seen(3, 300)]))
    shopper = merge([person, session], query(seen(2, 999), seen(4, 250)))
    assert [event.event_id for event in shopper.events] == ["e1", "e2", "e4", "e3"]
    assert shopper.last_event_ms == 300


def test_impressions_and_searches_are_no_interest() -> None:
    shopper = merge([], query(seen(1, 1, EventType.IMPRESSION), seen(2, 2, EventType.SEARCH)))
    assert not shopper.events and not shopper.known


def test_the_item_of_the_page_counts_as_viewed_now() -> None:
    shopper = merge([ShopperFeatures(recent=Events.of([seen(1, 100)]))], query(page_item_id="page"))
    assert [event.item_id for event in shopper.events] == ["item-1", "page"]
    assert shopper.last_event_ms == NOW_MS and shopper.events.types[-1] == EventType.VIEW


def test_purchases_of_person_and_session_are_added_up() -> None:
    person = ShopperFeatures(
        purchases=Purchases.of([Purchase("a", 2, 100, 200), Purchase("b", 1, 50, 50)]), basket_count=3
    )
    session = ShopperFeatures(purchases=Purchases.of([Purchase("b", 2, 10, 500)]), basket_count=2)
    shopper = merge([person, session], query(seen(9, 900, EventType.PURCHASE)))
    assert [*shopper.purchases] == [Purchase("b", 3, 10, 500), Purchase("a", 2, 100, 200)]
    assert shopper.basket_count == 5
    assert shopper.bought_ms == {"a": 200, "b": 500, "item-9": 900}


def test_a_purchase_that_is_sent_along_counts_as_bought_however_many_events_came_after_it() -> None:
    row = ShopperFeatures(recent=Events.of(seen(number, 2_000 + number) for number in range(RECENT_EVENTS)))
    bought = merge([row], query(seen(100, 1_000, EventType.PURCHASE)))
    assert bought.bought_ms == {"item-100": 1_000} and bought.events.times_ms[0] == 2_000
    sent = [seen(0, 1_000, EventType.PURCHASE), *(seen(number, 2_000 + number) for number in range(1, RECENT_EVENTS))]
    assert merge([], query(*sent, page_item_id="page")).bought_ms == {"item-0": 1_000}


def test_a_purchase_that_the_purchases_do_not_hold_yet_counts_and_an_older_one_takes_nothing_back() -> None:
    row = ShopperFeatures(
        recent=Events.of([seen(1, 50, EventType.PURCHASE), *(seen(n, 500 + n, EventType.PURCHASE) for n in (2, 3))]),
        purchases=Purchases.of([Purchase("item-1", 2, 100, 200), Purchase("item-2", 1, 100, 100)]),
    )
    assert merge([row], query()).bought_ms == {"item-1": 200, "item-2": 502, "item-3": 503}


def test_of_many_purchases_the_model_reads_the_first() -> None:
    bought = [Purchase(f"i{number}", 9 - number, number, 10 * number) for number in range(3)]
    for count, kept in ((2, bought[:2]), (3, bought), (4, bought)):
        assert Purchases.of(bought).first(count) == Purchases.of(kept)


def test_the_request_says_the_country_and_the_profile_the_rest() -> None:
    rows = [ShopperFeatures(), ShopperFeatures(profile=Profile(30, "f", "GB"))]
    assert merge(rows, query()).profile == Profile(30, "f", "GB")
    assert merge(rows, query(country="FR")).profile == Profile(30, "f", "FR")


@pytest.mark.parametrize(
    ("events", "through_ms", "fresh"),
    [
        (3, 0, True),  # a short window covers everything since
        (RECENT_EVENTS, 1_000, True),  # the oldest of a full window was encoded
        (RECENT_EVENTS, 999, False),  # events between may be in neither
    ],
)
def test_a_vector_is_stale_when_the_window_no_longer_covers_what_came_after(
    events: int, through_ms: int, fresh: bool
) -> None:
    row = ShopperFeatures(
        recent=Events.of(seen(number, 1_000 + number) for number in range(events)), interest=encoded(through_ms)
    )
    shopper = merge([row], query())
    assert (shopper.interest is not None) == fresh
    assert shopper.interest_stale == (not fresh)


def test_a_vector_is_stale_when_the_request_pushes_unencoded_events_out_of_the_window() -> None:
    row = ShopperFeatures(recent=Events.of([seen(100, 1_500), seen(101, 1_501)]), interest=encoded(1_000))
    events = [seen(number, 2_000 + number) for number in range(RECENT_EVENTS)]
    assert merge([row], query(*events[:-2])).interest is not None
    assert merge([row], query(*events)).interest is None


def test_an_old_vector_is_not_stale_by_age() -> None:
    assert merge([ShopperFeatures(interest=encoded(1))], query()).interest is not None


def test_no_vector_is_not_a_stale_one() -> None:
    assert not merge([ShopperFeatures(recent=Events.of([seen(1, 100)]))], query()).interest_stale


def test_the_model_reads_the_clock_that_it_learned_from_whatever_the_shoppers_own_shows() -> None:
    event = seen(1, NOW_MS - 1)
    assert merge([], query(event, local_time_ms=NOW_MS + 8 * 3_600_000)) == merge([], query(event))
