"""A shopper's online features as lists and arrays: the one module of the gateway that knows Feast.

Requests that come together are read together, all views of them at once. Values are decoded by the types that the
definitions give them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

import features.lean_feast  # noqa: F401  (before feast)

# isort: split
from feast import FeatureStore, FeatureView
from feast.protos.feast.types.Value_pb2 import Value

from features.inputs.shopper import (
    NO_EVENTS,
    NO_PROFILE,
    NO_PURCHASES,
    Events,
    LongInterest,
    Profile,
    Purchases,
    ShopperFeatures,
)
from features.online.online_values import WantedFeatures, read_values
from features.schema import (
    PROFILE_FEATURES,
    PROFILE_VIEW,
    PURCHASES_FEATURES,
    PURCHASES_VIEW,
    RECENT_VIEW,
    interest_view,
)
from features.settings import Settings
from features.store import StoreError, close, give_up_soon, online_file, open_registry, open_store

LOG = logging.getLogger(__name__)

MAX_SHOPPERS = 256
"""Entities in one read; SQLite takes at most 32,766 parameters, and long reads hold up the next."""

RECENT = ("event_ids", "item_ids", "event_types", "event_times_ms")
INTEREST = ("vector", "encoded_through_ms")
BASE = ((RECENT_VIEW, RECENT), (PURCHASES_VIEW, PURCHASES_FEATURES), (PROFILE_VIEW, PROFILE_FEATURES))

Row = Sequence[bytes | None]
"""Serialized values, None where there is none."""

Views = tuple[tuple[str, tuple[str, ...]], ...]
"""Names of views, and of their features."""

Request = tuple[Sequence[str], int]
"""Entity keys of one shopper, and the release whose vector is wanted (0: none)."""


class OnlineFeatures:
    """The online store. One thread opens and reads it, Feast's SQLite connection belongs to that one; another may read
    the registry meanwhile."""

    def __init__(self, settings: Settings, *, give_up_s: float) -> None:
        self._settings = settings
        self._give_up_s = give_up_s
        self._store: FeatureStore | None = None
        self._file: int | None = None
        self._registry: FeatureStore | None = None
        self._registered = _Registered({})
        self._damaged = False

    @property
    def views(self) -> Mapping[str, FeatureView]:
        """Of the registry, when it was last read."""
        return self._registered.views

    @property
    def opened(self) -> bool:
        """Whether there is a store to read."""
        return self._store is not None

    def read_registry(self) -> None:
        """Takes the views as they are now."""
        self._registry = self._registry or open_registry(self._settings)
        self._registry.refresh_registry()  # type: ignore[no-untyped-call]
        self._registered = _Registered({view.name: view for view in self._registry.list_feature_views()})

    def open(self) -> None:
        """Opens the store, with its online store loaded: Feast imports it late."""
        file = online_file(self._settings)  # first: SQLite would make an empty one
        store = open_store(self._settings)
        give_up_soon(store, self._give_up_s)
        self._rows(store, ((RECENT_VIEW, RECENT),), ["nobody"])
        self._store, self._file = store, file

    def read(self, requests: Sequence[Request]) -> list[list[ShopperFeatures]]:
        """The features of each key of each request, in order; a key that the store does not know is empty, and so is
        one whose row cannot be read: it fails nobody else's request.

        Raises:
            sqlite3.Error, RedisError, StoreError: the store does not answer.
        """
        if self._store is not None and online_file(self._settings) != self._file:
            close(self._store)
            self.open()
        store = self._store
        if store is None:
            raise StoreError("the feature store is not open yet")
        keys = sorted({key for shopper_keys, _ in requests for key in shopper_keys})
        releases = sorted({release for _, release in requests if release})
        views = (*BASE, *((interest_view(release), INTEREST) for release in releases))
        rows = dict(zip(keys, self._rows(store, views, keys), strict=True))
        place = {release: number for number, release in enumerate(releases)}
        nothing: Row = [None] * len(INTEREST)
        return [
            [
                self._readable(recent, purchases, profile, interests[place[release]] if release else nothing)
                for recent, purchases, profile, *interests in (rows[key] for key in shopper_keys)
            ]
            for shopper_keys, release in requests
        ]

    def _readable(self, *row: Row) -> ShopperFeatures:
        try:
            return _features(*row)
        except (DecodeError, TypeError, ValueError) as error:
            if not self._damaged:
                LOG.error("rows of the online store cannot be read, `python -m features build` writes them: %r", error)
            self._damaged = True
            return ShopperFeatures()

    def _rows(self, store: FeatureStore, views: Views, keys: Sequence[str]) -> list[list[Row]]:
        """For each key the values of each view; all None for a view that the registry does not have."""
        plan = self._registered.plan(store.config.project, views)
        if not plan.wanted.features:
            return [[nothing for _, nothing in plan.parts] for _ in keys]
        rows = read_values(store, plan.wanted, keys)
        return [[nothing if part is None else values[part] for part, nothing in plan.parts] for values in rows]


class _Registered:
    """Views of a registry, and how they are read together, worked out once."""

    def __init__(self, views: Mapping[str, FeatureView]) -> None:
        self.views = views
        self._plans: dict[Views, _Plan] = {}

    def plan(self, project: str, views: Views) -> _Plan:
        """For some views, in their order."""
        if views not in self._plans:
            features: list[tuple[FeatureView, str]] = []
            parts: list[tuple[slice | None, Row]] = []
            for view, names in views:
                start, known = len(features), self.views.get(view)
                features += [(known, name) for name in names] if known else []
                parts.append((slice(start, len(features)) if known else None, [None] * len(names)))
            self._plans[views] = _Plan(WantedFeatures(project, features), parts)
        return self._plans[views]


@dataclass(frozen=True, slots=True)
class _Plan:
    """parts: of each view its part of a row of values, None where the registry has no such view, and a row of None."""

    wanted: WantedFeatures
    parts: Sequence[tuple[slice | None, Row]]


def _features(recent: Row, purchases: Row, profile: Row, interest: Row) -> ShopperFeatures:
    event_ids, event_items, event_types, event_times = recent
    item_ids, counts, first_times, last_times, basket_count = purchases
    vector, encoded_through_ms = interest
    return ShopperFeatures(
        recent=Events(*_even(_texts(event_ids), _texts(event_items), _ints(event_types), _longs(event_times)))
        if event_items
        else NO_EVENTS,
        purchases=Purchases(*_even(_texts(item_ids), _ints(counts), _longs(first_times), _longs(last_times)))
        if item_ids
        else NO_PURCHASES,
        basket_count=int(_scalar(basket_count) or 0),
        profile=Profile(*map(_scalar, profile)) if any(profile) else NO_PROFILE,
        interest=LongInterest(np.array(numbers, np.float32), int(_scalar(encoded_through_ms) or 0))
        if vector and len(numbers := Value.FromString(vector).float_list_val.val[:])
        else None,
    )


def _even(*columns: Sequence[Any]) -> Sequence[Sequence[Any]]:
    """The columns, cut to the shortest: where a value is missing, the rest of the row says nothing."""
    shortest, longest = min(map(len, columns)), max(map(len, columns))
    return columns if shortest == longest else [column[:shortest] for column in columns]


def _texts(value: bytes | None) -> Sequence[str]:
    return Value.FromString(value).string_list_val.val[:] if value else ()


def _ints(value: bytes | None) -> Sequence[int]:
    return Value.FromString(value).int32_list_val.val[:] if value else ()


def _longs(value: bytes | None) -> Sequence[int]:
    return Value.FromString(value).int64_list_val.val[:] if value else ()


def _scalar(value: bytes | None) -> Any:
    """The content of a value of any type; None where there is none."""
    if not value:
        return None
    read = Value.FromString(value)
    kind = read.WhichOneof("val")
    return getattr(read, kind) if kind and kind != "null_val" else None
