"""Small shops for the feature tests: random logs, and what a shop's online store holds."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import Engine

from features.database.engine import open_database
from features.erasure.tombstones import Tombstones
from features.log.event_log import EventLog, NewEvent
from features.schema import EventType
from features.settings import Settings
from features.shop.catalogue import Catalogue, CatalogueItem
from features.store import FeatureStore, opened

START_MS = 1_700_000_000_000
NOBODY_ERASED = Tombstones(Settings())
"""For writers to a shop from which nobody was erased."""
HOUR_MS = 3_600_000


def random_events(count: int, *, seed: int, shoppers: int = 7, first: int = 0, items: int = 9) -> list[NewEvent]:
    """Events of users and sessions, with late ones, equal times, orders over several items, searches, impressions."""
    rng = np.random.default_rng(seed)
    events = []
    for number in range(first, first + count):
        kind = EventType(int(rng.choice([1, 1, 1, 2, 3, 4, 4, 5, 6, 7])))
        shopper = int(rng.integers(shoppers))
        known = shopper % 2 == 0
        events.append(
            NewEvent(
                event_id=f"event-{number}",
                event_type=int(kind),
                event_time_ms=START_MS + int(rng.integers(count // 2 + 1)) * HOUR_MS,
                user_id=f"{shopper}" if known else None,
                session_id=f"{shopper}",
                item_id=None if kind == EventType.SEARCH else f"item-{int(rng.integers(items))}",
                order_id=f"order-{int(rng.integers(4))}" if kind == EventType.PURCHASE and rng.random() < 0.5 else None,
                query="a lamp" if kind == EventType.SEARCH else None,
            )
        )
    return events


def fill(settings: Settings, events: Sequence[NewEvent], items: int = 9) -> Engine:
    """Writes events and a catalogue to the shop's database."""
    engine = open_database(settings.log_url)
    EventLog(engine).append(events, now_ms())
    Catalogue(engine).upsert(
        [CatalogueItem(item_id=f"item-{number}", category_path=[f"Top {number % 2}"]) for number in range(items)]
    )
    return engine


def online(settings: Settings, view: str, shoppers: Sequence[str]) -> dict[str, dict[str, Any] | None]:
    """The online rows of a view by shopper, None where there is none."""
    with opened(settings) as store:
        return read_rows(store, view, shoppers)


def read_rows(store: FeatureStore, view: str, shoppers: Sequence[str]) -> dict[str, dict[str, Any] | None]:
    """`online` with a store that is open."""
    names = [feature.name for feature in store.get_feature_view(view).features]
    answer = store.get_online_features(
        features=[f"{view}:{name}" for name in names], entity_rows=[{"shopper": shopper} for shopper in shoppers]
    ).to_dict()
    rows = {}
    for number, shopper in enumerate(shoppers):
        row = {name: answer[name][number] for name in names}
        rows[shopper] = None if all(value is None for value in row.values()) else row
    return rows


def write_generated(settings: Settings, release: int, interest_dim: int) -> None:
    """What training writes for a release that it publishes."""
    settings.generated.mkdir(parents=True, exist_ok=True)
    content = {"release": release, "interest_dim": interest_dim}
    (settings.generated / f"v{release}.json").write_text(json.dumps(content))


def now_ms() -> int:
    """The time, in milliseconds since the epoch."""
    return int(time.time() * 1000)


def sign_in(engine: Engine, session_id: str, user_id: str, time_ms: int) -> None:
    """The event that signs a session in."""
    event = NewEvent(
        event_id=f"sign-in-{session_id}",
        event_type=int(EventType.VIEW),
        event_time_ms=time_ms,
        user_id=user_id,
        session_id=session_id,
        item_id="item-0",
    )
    EventLog(engine).append([event], 0)
