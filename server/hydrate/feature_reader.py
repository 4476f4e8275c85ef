"""The one module of the gateway that knows Feast: a shopper's online features as lists and arrays.

Requests that come together are read together, all views of them at once, on one thread: Feast's SQLite connection
belongs to a single one. Values are decoded by the types that the definitions give them.
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
from feast.protos.feast.types.Value_pb2 import Value

from features.online_values import read_values
from features.schema import PROFILE_VIEW, PURCHASES_VIEW, RECENT_VIEW, interest_view
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

RECENT = ("event_ids", "item_ids", "event_types", "event_times_ms")
PURCHASES = ("item_ids", "counts", "first_times_ms", "last_times_ms", "basket_count")
PROFILE = ("age", "gender", "country")
INTEREST = ("vector", "encoded_through_ms")
UNKNOWN = Profile()
BASE = ((RECENT_VIEW, RECENT), (PURCHASES_VIEW, PURCHASES), (PROFILE_VIEW, PROFILE))

Row = Sequence[bytes | None]
"""Serialized values, None where there is none."""

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
        self._rows(store, ((RECENT_VIEW, RECENT),), ["nobody"])
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
        releases = sorted({release for _, release in requests if release})
        views = (*BASE, *((interest_view(release), INTEREST) for release in releases))
        rows = dict(zip(keys, self._rows(store, views, keys), strict=True))
        place = {release: number for number, release in enumerate(releases)}
        nothing: Row = [None] * len(INTEREST)
        return [
            [
                _features(recent, purchases, profile, interests[place[release]] if release else nothing)
                for recent, purchases, profile, *interests in (rows[key] for key in shopper_keys)
            ]
            for shopper_keys, release in requests
        ]

    def _rows(
        self, store: FeatureStore, views: Sequence[tuple[str, Sequence[str]]], keys: Sequence[str]
    ) -> list[list[Row]]:
        """For each key the values of each view; all None for a view that the registry does not have."""
        wanted = [(self._views[view], name) for view, names in views if view in self._views for name in names]
        if not wanted:
            return [[[None] * len(names) for _, names in views] for _ in keys]
        found: list[list[Row]] = []
        for values in read_values(store, wanted, keys):
            row, start = list[Row](), 0
            for view, names in views:
                known = view in self._views
                row.append(values[start : start + len(names)] if known else [None] * len(names))
                start += len(names) if known else 0
            found.append(row)
        return found


def _features(recent: Row, purchases: Row, profile: Row, interest: Row) -> ShopperFeatures:
    event_ids, event_items, event_types, event_times = recent
    item_ids, counts, first_times, last_times, basket_count = purchases
    vector, encoded_through_ms = interest
    return ShopperFeatures(
        recent=tuple(map(ShopperEvent, _texts(event_ids), _texts(event_items), _ints(event_types), _longs(event_times)))
        if event_ids
        else (),
        purchases=tuple(map(Purchase, _texts(item_ids), _ints(counts), _longs(first_times), _longs(last_times)))
        if item_ids
        else (),
        basket_count=int(_scalar(basket_count) or 0),
        profile=Profile(*map(_scalar, profile)) if any(profile) else UNKNOWN,
        interest=LongInterest(np.array(numbers, np.float32), int(_scalar(encoded_through_ms) or 0))
        if vector and len(numbers := Value.FromString(vector).float_list_val.val)
        else None,
    )


def _texts(value: bytes | None) -> Sequence[str]:
    return Value.FromString(value or b"").string_list_val.val


def _ints(value: bytes | None) -> Sequence[int]:
    return Value.FromString(value or b"").int32_list_val.val


def _longs(value: bytes | None) -> Sequence[int]:
    return Value.FromString(value or b"").int64_list_val.val


def _scalar(value: bytes | None) -> Any:
    """The content of a value of any type; None where there is none."""
    if not value:
        return None
    read = Value.FromString(value)
    kind = read.WhichOneof("val")
    return getattr(read, kind) if kind and kind != "null_val" else None
