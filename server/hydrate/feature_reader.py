"""The one module of the gateway that knows Feast: a shopper's online features as lists and arrays.

Requests that come together are read together. Rows are taken from the online store as protobuf values, past Feast's
dictionaries, on one thread: its SQLite connection belongs to a single one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import features.lean_feast  # noqa: F401  (before feast)

# isort: split
from feast import FeatureStore, FeatureView
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from features.schema import PROFILE_VIEW, PURCHASES_VIEW, RECENT_VIEW, SHOPPER, interest_view
from features.settings import Settings
from features.shopper import LongInterest, Profile, Purchase, ShopperEvent, ShopperFeatures
from features.store import give_up_soon, open_store
from server.deadline import SLOW_S, Deadline
from server.errors import FeaturesUnavailable
from server.infer.breaker import Breaker
from server.infer.coalescer import Coalescer
from server.stages import FEATURES, Stage

LOG = logging.getLogger(__name__)

REOPEN_S = 2.0
"""Between two attempts to open the store."""

MAX_SHOPPERS = 256
"""Entities in one read; SQLite takes at most 32,766 parameters, and long reads hold up the next."""

SHARE = 0.5
"""Of what is left; the model needs the rest."""

Request = tuple[Sequence[str], int]
"""Entity keys of one shopper, and the release whose vector is wanted (0: none)."""


class FeatureReader:
    """Reads the online store; one object a process."""

    def __init__(self, settings: Settings, budget_s: float) -> None:
        self._settings = settings
        self._budget_s = budget_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feast-reads")
        self._registry_thread = ThreadPoolExecutor(1, thread_name_prefix="feast-registry")
        self._pipe: Coalescer[Request, list[ShopperFeatures]] = Coalescer(
            self._read, line="features", max_batch=MAX_SHOPPERS // 2
        )
        self._breaker = Breaker("feature-store")
        self.opened = asyncio.Event()
        """Set once the store has been tried: it is open, or requests go on without it."""
        self._store: FeatureStore | None = None
        self._registry: FeatureStore | None = None
        self._views: dict[str, FeatureView] = {}

    async def read(self, keys: Sequence[str], release: int, deadline: Deadline) -> list[ShopperFeatures]:
        """The features of each key, in order; one that the store does not know is empty.

        Raises:
            FeaturesUnavailable: the store failed, or did not answer in time.
        """
        if not self._breaker.allows():
            raise FeaturesUnavailable("the feature store does not answer")
        left_s = deadline.left_s(self._budget_s, SHARE)
        try:
            with Stage(FEATURES):
                features = await self._pipe.submit((keys, release), left_s)
        except asyncio.TimeoutError:
            if left_s >= min(SLOW_S, self._budget_s):  # its own fault, not a hurried caller's
                self._breaker.failed(f"no answer within {left_s:.3f} s")
            raise FeaturesUnavailable("the feature store was too slow") from None
        except Exception as error:
            self._breaker.failed(repr(error))
            raise FeaturesUnavailable(f"the feature store failed: {error!r}") from error
        self._breaker.succeeded()
        return features

    async def serves(self, release: int) -> bool:
        """Reads the registry again and says whether it has the release's view."""
        loop = asyncio.get_running_loop()
        self._views = await loop.run_in_executor(self._registry_thread, self._read_registry)
        if self._store is None:
            self._store = await loop.run_in_executor(self._thread, self._open)
        return interest_view(release) in self._views

    async def follow(self) -> None:
        """Opens the store, and tries again until it is open and the definitions are applied."""
        quiet = False
        while RECENT_VIEW not in self._views:
            try:
                await self.serves(0)
            except Exception as error:  # Feast raises whatever its stores raise
                if not quiet:
                    LOG.warning("the feature store cannot be opened, serving without it: %r", error)
                quiet = True
            self.opened.set()
            await asyncio.sleep(REOPEN_S)

    def close(self) -> None:
        """Stops the threads; reads that wait are dropped."""
        for thread in (self._thread, self._registry_thread):
            thread.shutdown(wait=True, cancel_futures=True)

    async def _read(self, requests: Sequence[Request]) -> list[list[ShopperFeatures]]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read_batch, requests)

    def _open(self) -> FeatureStore:
        """The store that reads, with its online store loaded: Feast imports it late."""
        store = open_store(self._settings)
        give_up_soon(store, 2 * self._budget_s)
        self._rows(store, RECENT_VIEW, [_entity("nobody")])
        return store

    def _read_registry(self) -> dict[str, FeatureView]:
        """The views as they are now, read beside the reads of features."""
        self._registry = self._registry or open_store(self._settings)
        self._registry.refresh_registry()  # type: ignore[no-untyped-call]
        return {view.name: view for view in self._registry.list_feature_views()}

    def _read_batch(self, requests: Sequence[Request]) -> list[list[ShopperFeatures]]:
        store = self._store
        if store is None:
            return [[ShopperFeatures() for _ in keys] for keys, _ in requests]
        keys = sorted({key for shopper_keys, _ in requests for key in shopper_keys})
        entities = [_entity(key) for key in keys]
        base = [self._rows(store, name, entities) for name in (RECENT_VIEW, PURCHASES_VIEW, PROFILE_VIEW)]
        interests = {
            release: self._rows(store, interest_view(release), entities)
            for release in {release for _, release in requests if release}
        }
        place = {key: number for number, key in enumerate(keys)}
        nothing: list[dict[str, Value] | None] = [None] * len(keys)
        return [
            [
                _features(*(rows[place[key]] for rows in (*base, interests.get(release, nothing))))
                for key in shopper_keys
            ]
            for shopper_keys, release in requests
        ]

    def _rows(self, store: FeatureStore, view: str, entities: list[EntityKey]) -> list[dict[str, Value] | None]:
        table = self._views.get(view)
        if table is None:
            return [None] * len(entities)
        names = [feature.name for feature in table.features]
        rows = store._get_provider().online_read(store.config, table, entities, names)
        return [values for _, values in rows]


def _entity(key: str) -> EntityKey:
    return EntityKey(join_keys=[SHOPPER], entity_values=[Value(string_val=key)])


def _features(
    recent: dict[str, Value] | None,
    purchases: dict[str, Value] | None,
    profile: dict[str, Value] | None,
    interest: dict[str, Value] | None,
) -> ShopperFeatures:
    events: tuple[ShopperEvent, ...] = ()
    bought: tuple[Purchase, ...] = ()
    if recent:
        columns = (_values(recent, name) for name in ("event_ids", "item_ids", "event_types", "event_times_ms"))
        events = tuple(map(ShopperEvent, *columns))
    if purchases:
        columns = (_values(purchases, name) for name in ("item_ids", "counts", "first_times_ms", "last_times_ms"))
        bought = tuple(map(Purchase, *columns))
    vector = _values(interest, "vector") if interest else ()
    return ShopperFeatures(
        recent=events,
        purchases=bought,
        basket_count=int(_value(purchases, "basket_count") or 0),
        profile=Profile(*(_value(profile, name) for name in ("age", "gender", "country"))),
        interest=LongInterest(np.array(vector, np.float32), int(_value(interest, "encoded_through_ms") or 0))
        if len(vector)
        else None,
    )


def _value(row: dict[str, Value] | None, name: str) -> Any:
    """The content of a value; None where the row or the value is missing."""
    value = row.get(name) if row else None
    kind = value.WhichOneof("val") if value is not None else None
    return getattr(value, kind) if kind and kind != "null_val" else None


def _values(row: dict[str, Value], name: str) -> Sequence[Any]:
    """The content of a list; empty where it is missing."""
    content = _value(row, name)
    return () if content is None else content.val
