"""Step one: what is known of the shopper at this moment, and the tensors that say it to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.codes import context_codes, shopper_codes
from features.schema import OWN_FEATURES, OWN_ITEMS, PADDING, RECENT_EVENTS, SEQUENCE_TYPES, UNKNOWN, EventType
from features.transform import own_item_features, pad_own_items, pad_sequence
from server.catalogue_index import CatalogueIndex, Rows
from server.feature_reader import LongInterest, Profile, Purchase, ShopperFeatures
from server.loaded_release import LoadedRelease
from server.queries import ShopperEvent, ShopperQuery
from server.triton import FusionRequest

_SEQUENCE_TYPES = frozenset(int(kind) for kind in SEQUENCE_TYPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shopper:
    """A shopper as one request sees them: person and session merged, what was sent along counted."""

    now_ms: int
    local_time_ms: int
    device: str
    events: tuple[ShopperEvent, ...]
    """The newest `RECENT_EVENTS` that enter the sequence, newest last."""
    purchases: tuple[Purchase, ...]
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
        return self.events[-1].time_ms if self.events else None


def merge(features: Sequence[ShopperFeatures], query: ShopperQuery) -> Shopper:
    """Joins the rows of person and session by time with what the request brought along."""
    merged: dict[str, ShopperEvent] = {}
    for row in features:
        merged.update((event.event_id, event) for event in row.recent)
    for event in query.recent_events:
        if event.event_type in _SEQUENCE_TYPES:
            merged.setdefault(event.event_id, event)
    events = sorted(merged.values(), key=lambda event: event.time_ms)
    if query.context.page_item_id:
        events.append(ShopperEvent("", query.context.page_item_id, EventType.VIEW, query.now_ms))
    dropped, events = events[:-RECENT_EVENTS], events[-RECENT_EVENTS:]
    purchases = _purchases(features)
    bought = {purchase.item_id: purchase.last_ms for purchase in purchases}
    for event in events:
        if event.event_type == EventType.PURCHASE:
            bought[event.item_id] = max(event.time_ms, bought.get(event.item_id, event.time_ms))
    interest = next((row.interest for row in features if row.interest is not None), None)  # the person's, if any
    stale = interest is not None and _is_stale(interest, features, dropped)
    profile = next((row.profile for row in features if row.profile != Profile()), Profile())
    context = query.context
    return Shopper(
        now_ms=query.now_ms,
        local_time_ms=query.now_ms if context.local_time_ms is None else context.local_time_ms,
        device=context.device,
        events=tuple(events),
        purchases=purchases,
        basket_count=sum(row.basket_count for row in features),
        profile=Profile(profile.age, profile.gender, context.country or profile.country),
        interest=None if stale else interest,
        interest_stale=stale,
        bought_ms=bought,
    )


def _is_stale(interest: LongInterest, features: Sequence[ShopperFeatures], dropped: Sequence[ShopperEvent]) -> bool:
    """Whether events came after the vector that the window no longer covers."""
    through_ms = interest.encoded_through_ms
    (own,) = [row for row in features if row.interest is interest]
    lost = len(own.recent) >= RECENT_EVENTS and own.recent[0].time_ms > through_ms
    return lost or any(event.time_ms > through_ms for event in dropped)


def _purchases(features: Sequence[ShopperFeatures]) -> tuple[Purchase, ...]:
    rows = [row for row in features if row.purchases]
    if len(rows) == 1:
        return rows[0].purchases
    merged: dict[str, Purchase] = {}
    for row in rows:
        for new in row.purchases:
            old = merged.get(new.item_id, new)
            count = new.count if old is new else old.count + new.count
            merged[new.item_id] = Purchase(
                new.item_id, count, min(old.first_ms, new.first_ms), max(old.last_ms, new.last_ms)
            )
    return tuple(sorted(merged.values(), key=lambda bought: (-bought.count, -bought.last_ms, bought.item_id)))


def fusion_request(
    shopper: Shopper,
    release: LoadedRelease,
    index: CatalogueIndex,
    *,
    allowed: bytes,
    candidates: npt.NDArray[np.int32],
    long_term: bool = True,
    recent: bool = True,
) -> FusionRequest:
    """The model's inputs for one request.

    Args:
        allowed: the packed bits of `LoadedRelease.allowed_bits`.
        candidates: int32 (C,), item indices, `PADDING` where there is none.
        long_term, recent: whether to let the model see that strand: vector and purchases, or the newest events.
    """
    now = np.array([shopper.now_ms], np.int64)
    interest = shopper.interest if long_term else None
    usable = interest is not None and interest.vector.size == release.interest_dim
    vector = interest.vector if interest and usable else np.zeros(release.interest_dim, np.float32)
    age_s = max(0, shopper.now_ms - interest.encoded_through_ms) / 1000 if interest and usable else 0.0
    events = shopper.events if recent else ()
    rows = index.rows([event.item_id for event in events])
    sequence = pad_sequence(
        release.indices(rows),
        np.fromiter((event.event_type for event in events), np.int32, len(events)),
        np.fromiter((event.time_ms for event in events), np.int64, len(events)),
        np.zeros(1, np.int64),
        np.array([len(events)], np.int64),
        now,
    )
    own_items, own_features = _own_items(shopper.purchases if long_term else (), shopper, release, index)
    profile = shopper.profile
    return FusionRequest(
        release.number,
        (
            vector,
            np.array([usable], np.float32),
            np.array([age_s], np.float32),
            sequence.items[0],
            sequence.types[0],
            sequence.ages[0],
            _unknown_content(sequence.items[0], rows, release),
            own_items,
            own_features,
            shopper_codes([profile.age], [profile.gender], [profile.country], release.codes)[0],
            context_codes(np.array([shopper.local_time_ms], np.int64), [shopper.device or None], release.codes)[0],
            np.frombuffer(allowed, np.uint8),
            candidates,
        ),
    )


def no_candidates() -> npt.NDArray[np.int32]:
    """The tensor `candidates` where nothing is to be scored."""
    return np.full(1, PADDING, np.int32)


def _unknown_content(items: npt.NDArray[np.int32], rows: Rows, release: LoadedRelease) -> npt.NDArray[np.int32]:
    """int32 (RECENT_EVENTS, CONTENT_TOKENS): content of the events' items that the release does not know."""
    padded = np.full(RECENT_EVENTS, -1, np.int32)
    if rows.size:
        padded[-rows.size :] = rows
    return release.content_of(np.where(items == UNKNOWN, padded, -1).astype(np.int32))


def _own_items(
    purchases: tuple[Purchase, ...], shopper: Shopper, release: LoadedRelease, index: CatalogueIndex
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    bought = purchases[:OWN_ITEMS]
    count = len(bought)
    if not count:
        return np.full(OWN_ITEMS, PADDING, np.int32), np.zeros((OWN_ITEMS, len(OWN_FEATURES)), np.float32)
    features = own_item_features(
        np.fromiter((purchase.count for purchase in bought), np.float64, count),
        np.fromiter((purchase.first_ms for purchase in bought), np.float64, count),
        np.fromiter((purchase.last_ms for purchase in bought), np.float64, count),
        np.full(count, float(shopper.basket_count)),
        np.full(count, float(shopper.now_ms)),
    )
    indices = release.indices(index.rows([purchase.item_id for purchase in bought]))
    items, values = pad_own_items(indices, features, np.zeros(1, np.int64), np.array([count], np.int64))
    return items[0], values[0]
