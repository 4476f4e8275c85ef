"""A shopper as one request sees them: person and session merged, what the request brought along counted.

The gateway makes it of the online rows that it has just read, the skew check of the offline rows as they were then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.schema import RECENT_EVENTS, SEQUENCE_TYPES, EventType

_SEQUENCE_TYPES = frozenset(int(kind) for kind in SEQUENCE_TYPES)
_PURCHASE = int(EventType.PURCHASE)  # an enumeration's member takes longer to find and to compare


class ShopperEvent(NamedTuple):
    """One event of a shopper, from the request or the feature store."""

    event_id: str
    item_id: str
    event_type: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Events:
    """Events of a shopper in columns of one length, ascending by time: as they are stored, and as tensors want them."""

    event_ids: Sequence[str] = ()
    item_ids: Sequence[str] = ()
    types: Sequence[int] = ()
    times_ms: Sequence[int] = ()

    @staticmethod
    def of(events: Iterable[ShopperEvent]) -> Events:
        """The columns of events that are in order."""
        return Events(*columns) if (columns := list(zip(*events, strict=True))) else NO_EVENTS

    def __len__(self) -> int:
        return len(self.item_ids)

    def __iter__(self) -> Iterator[ShopperEvent]:
        return map(ShopperEvent, self.event_ids, self.item_ids, self.types, self.times_ms)


NO_EVENTS = Events()


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Where and when the shopper is. Empty strings are not known."""

    country: str = ""
    device: str = ""
    local_time_ms: int | None = None
    page_category: tuple[str, ...] = ()
    page_item_id: str = ""


NO_CONTEXT = Context()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopperQuery:
    """For whom and when: what every call about a shopper has."""

    user_id: str
    session_id: str
    now_ms: int
    context: Context = NO_CONTEXT
    recent_events: tuple[ShopperEvent, ...] = ()

    @property
    def keys(self) -> list[str]:
        """The entity keys to read, the person's first."""
        keys = [f"u:{self.user_id}"] if self.user_id else []
        return [*keys, f"s:{self.session_id}"] if self.session_id else keys


class Purchase(NamedTuple):
    """What a shopper has bought of one item; `count` in baskets."""

    item_id: str
    count: int  # type: ignore[assignment]  # in place of the tuple's method
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class Purchases:
    """What a shopper has bought, an item a row, in columns of one length."""

    item_ids: Sequence[str] = ()
    counts: Sequence[int] = ()
    """In baskets."""
    first_ms: Sequence[int] = ()
    last_ms: Sequence[int] = ()

    @staticmethod
    def of(purchases: Iterable[Purchase]) -> Purchases:
        """The columns of purchases."""
        return Purchases(*columns) if (columns := list(zip(*purchases, strict=True))) else NO_PURCHASES

    def __len__(self) -> int:
        return len(self.item_ids)

    def __iter__(self) -> Iterator[Purchase]:
        return map(Purchase, self.item_ids, self.counts, self.first_ms, self.last_ms)

    def first(self, count: int) -> Purchases:
        """At most so many of them."""
        if len(self) <= count:
            return self
        return Purchases(self.item_ids[:count], self.counts[:count], self.first_ms[:count], self.last_ms[:count])


NO_PURCHASES = Purchases()


@dataclass(frozen=True, slots=True)
class Profile:
    """Attributes of a shopper, None where unknown."""

    age: float | None = None
    gender: str | None = None
    country: str | None = None


NO_PROFILE = Profile()


@dataclass(frozen=True, slots=True)
class LongInterest:
    """A release's vector of one shopper, float32 (D,), and the newest event that it has seen."""

    vector: npt.NDArray[np.float32]
    encoded_through_ms: int


@dataclass(frozen=True, slots=True)
class ShopperFeatures:
    """One row of the feature store; what is missing is empty."""

    recent: Events = NO_EVENTS
    purchases: Purchases = NO_PURCHASES
    basket_count: int = 0
    profile: Profile = NO_PROFILE
    interest: LongInterest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shopper:
    """A shopper as one request sees them: person and session merged, what was sent along counted."""

    now_ms: int
    device: str
    stored: bool
    """Whether the feature store was read; without it there is what the request says."""
    events: Events
    """The newest `RECENT_EVENTS` that enter the sequence, newest last."""
    purchases: Purchases
    """Most baskets first, then newest."""
    basket_count: int
    profile: Profile
    """Its country is the request's where that has one."""
    interest: LongInterest | None
    """None where there is none, or none that is fresh."""
    interest_stale: bool
    """There is a vector, left out because events came after it that the window no longer covers."""
    bought_ms: dict[str, int]
    """Item id to the time of the last purchase, recent events included."""

    @property
    def known(self) -> bool:
        """Whether there is anything for a model to go by."""
        return bool(self.events or self.purchases or self.interest)

    @property
    def last_event_ms(self) -> int | None:
        """When the newest event happened."""
        return self.events.times_ms[-1] if self.events else None

    def seen_by_model(self, *, long_term: bool, recent: bool) -> Shopper:
        """The shopper with that strand alone: vector and purchases, or the newest events."""
        if not long_term:
            return replace(self, interest=None, purchases=NO_PURCHASES)
        return self if recent else replace(self, events=NO_EVENTS)

    def without_events_on(self, item_id: str) -> Shopper:
        """The shopper as if they had not turned to that item lately; what they bought long ago stays."""
        return replace(self, events=Events.of(event for event in self.events if event.item_id != item_id))


def merge(features: Sequence[ShopperFeatures], query: ShopperQuery) -> Shopper:
    """Joins the rows of person and session by time with what the request brought along."""
    dropped_ms, events = _events(features, query)
    purchases = _purchases(features)
    bought = dict(zip(purchases.item_ids, purchases.last_ms, strict=True))
    sent = [event for event in query.recent_events if event.event_type == _PURCHASE]  # in the window or not
    if sent or _PURCHASE in events.types:
        for _, item_id, event_type, time_ms in (*sent, *events):
            if event_type == _PURCHASE:
                bought[item_id] = max(time_ms, bought.get(item_id, time_ms))
    interest = next((row.interest for row in features if row.interest is not None), None)  # the person's, if any
    stale = interest is not None and _is_stale(interest, features, dropped_ms)
    profile = next((row.profile for row in features if row.profile != NO_PROFILE), NO_PROFILE)
    context = query.context
    return Shopper(
        now_ms=query.now_ms,
        device=context.device,
        stored=bool(features),
        events=events,
        purchases=purchases,
        basket_count=sum(row.basket_count for row in features),
        profile=replace(profile, country=context.country) if context.country else profile,
        interest=None if stale else interest,
        interest_stale=stale,
        bought_ms=bought,
    )


def _events(features: Sequence[ShopperFeatures], query: ShopperQuery) -> tuple[Sequence[int], Events]:
    """By time, each once: the times of those that the window no longer covers, and those that it does."""
    rows = [row.recent for row in features if row.recent]
    page_item_id = query.context.page_item_id
    if len(rows) == 1 and not query.recent_events and not page_item_id and len(rows[0]) <= RECENT_EVENTS:
        return (), rows[0]
    merged = {event.event_id: event for row in rows for event in row}
    for event in query.recent_events:
        if event.event_type in _SEQUENCE_TYPES:
            merged.setdefault(event.event_id, event)
    events = sorted(merged.values(), key=attrgetter("time_ms"))
    if page_item_id:
        events.append(ShopperEvent("", page_item_id, EventType.VIEW, query.now_ms))
    return [event.time_ms for event in events[:-RECENT_EVENTS]], Events.of(events[-RECENT_EVENTS:])


def _is_stale(interest: LongInterest, features: Sequence[ShopperFeatures], dropped_ms: Sequence[int]) -> bool:
    """Whether events came after the vector that the window no longer covers."""
    through_ms = interest.encoded_through_ms
    (own,) = [row for row in features if row.interest is interest]
    lost = len(own.recent) >= RECENT_EVENTS and own.recent.times_ms[0] > through_ms
    return lost or any(time_ms > through_ms for time_ms in dropped_ms)


def _purchases(features: Sequence[ShopperFeatures]) -> Purchases:
    """Most baskets first, then newest."""
    rows = [row.purchases for row in features if row.purchases]
    if len(rows) == 1:
        return rows[0]
    merged: dict[str, Purchase] = {}
    for row in rows:
        for new in row:
            old = merged.get(new.item_id, new)
            count = new.count if old is new else old.count + new.count
            merged[new.item_id] = Purchase(
                new.item_id, count, min(old.first_ms, new.first_ms), max(old.last_ms, new.last_ms)
            )
    return Purchases.of(sorted(merged.values(), key=lambda bought: (-bought.count, -bought.last_ms, bought.item_id)))
