"""Recorded answers made again from the offline files: the tensors that the model should have seen.

What was on its way at the moment of the answer may have been seen or not, so there are several versions of a
shopper: with and without each event that became known within `IN_FLIGHT_MS`, and each long-term vector that was
written within `WRITING_MS` (a materialisation writes its files a while before the online rows).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from features.answers.answers import shopper_query
from features.inputs.fusion_inputs import SHOPPER_INPUTS, shopper_inputs
from features.inputs.shopper import (
    NO_EVENTS,
    NO_PURCHASES,
    Events,
    LongInterest,
    Profile,
    Purchases,
    Shopper,
    ShopperFeatures,
    merge,
)
from features.inputs.transform import Array, Ints
from features.offline.point_in_time import OfflineEvents
from features.releases.release import ReleaseFiles
from features.schema import CONTENT_TOKENS, OWN_ITEMS, UNKNOWN, interest_view, offline_file

IN_FLIGHT_MS: Final = 1_000
WRITING_MS: Final = 60_000

REPLAYED: Final = tuple(tensor.name for tensor in SHOPPER_INPUTS if tensor.name != "recent_content")
"""Not the content of items younger than the release: the catalogue of that moment is not kept."""


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """What is replayed of a row of the table `answers`."""

    attribution_token: str
    answered_time_ms: int
    release: int
    request: Mapping[str, Any]
    features: bytes

    @property
    def keys(self) -> list[str]:
        """The rows of the feature store that were read for it."""
        if not self.request["stored"]:
            return []
        return shopper_query(self.request, self.answered_time_ms).keys


class Replay:
    """The offline files of a shop, as far as some answers of one release need them."""

    def __init__(self, offline: Path, release: ReleaseFiles, answers: Sequence[RecordedAnswer]) -> None:
        keys = sorted({key for answer in answers for key in answer.keys})
        self._release = release
        self._index = dict(zip(release.items["item_id"], range(release.items.height), strict=True))
        self._events = OfflineEvents(offline / "events.parquet", keys)
        self._profiles = _profiles(offline / "users.parquet", keys)
        self._vectors = _vectors(offline_file(offline, interest_view(release.manifest.release)), keys)

    def versions(self, answer: RecordedAnswer) -> Iterator[dict[str, Array]]:
        """`REPLAYED` by name, once for each state in which the online store may have been.

        `shopper` is left out where the profile was changed after the answer.
        """
        now_ms, keys = answer.answered_time_ms, answer.keys
        query = shopper_query(answer.request, now_ms)
        left_out = {"recent_content"}
        if any(changed_ms > now_ms - IN_FLIGHT_MS for key in keys for _, changed_ms in self._profiles.get(key, ())):
            left_out.add("shopper")
        vectors = [self._vectors_at(key, now_ms) for key in keys]
        for rows in self._rows(keys, now_ms):
            for chosen in product(*vectors):
                stored = [
                    ShopperFeatures(recent, bought, basket_count, self._profile(key), vector)
                    for key, (recent, bought, basket_count), vector in zip(keys, rows, chosen, strict=True)
                ]
                named = zip(SHOPPER_INPUTS, self._inputs(merge(stored, query)), strict=True)
                yield {tensor.name: array for tensor, array in named if tensor.name not in left_out}

    def _rows(self, keys: Sequence[str], now_ms: int) -> Iterator[list[_Rows]]:
        """Recent events and purchases of each key, in each state around a moment."""
        before_ms = now_ms - IN_FLIGHT_MS
        times = {before_ms, *(at for key in keys for at in self._events.changes(key, before_ms, now_ms + IN_FLIGHT_MS))}
        for time_ms in sorted(times):
            recent, purchases = self._events.rows_at(keys, [time_ms] * len(keys))
            events = {row["shopper"]: _events(row) for row in recent.to_dicts()}
            bought = {row["shopper"]: (_purchases(row), row["basket_count"]) for row in purchases.to_dicts()}
            yield [
                (events.get(place, NO_EVENTS), *bought.get(place, (NO_PURCHASES, 0)))
                for place in map(str, range(len(keys)))
            ]

    def _inputs(self, shopper: Shopper) -> tuple[Array, ...]:
        batch = shopper_inputs(
            [shopper],
            recent_items=self._indices(shopper.events.item_ids),
            recent_content=np.zeros((len(shopper.events), CONTENT_TOKENS), np.int32),
            own_items=self._indices(shopper.purchases.first(OWN_ITEMS).item_ids),
            codes=self._release.codes,
            interest_dim=self._release.manifest.interest_dim,
        )
        return tuple(array[0] for array in batch)

    def _indices(self, item_ids: Sequence[str]) -> Ints:
        return np.fromiter((self._index.get(item_id, UNKNOWN) for item_id in item_ids), np.int32, len(item_ids))

    def _profile(self, key: str) -> Profile:
        return next((profile for profile, _ in self._profiles.get(key, ())), Profile())

    def _vectors_at(self, key: str, now_ms: int) -> list[LongInterest | None]:
        """The vector that was online at a moment, or those that may have been."""
        written = [(time_ms, vector) for time_ms, vector in self._vectors.get(key, ()) if time_ms <= now_ms]
        settled = [vector for time_ms, vector in written if time_ms <= now_ms - WRITING_MS]
        return [settled[-1] if settled else None, *(vector for _, vector in written[len(settled) :])]


_Rows = tuple[Events, Purchases, int]


def _events(row: Mapping[str, Any]) -> Events:
    return Events(row["event_ids"], row["item_ids"], row["event_types"], row["event_times_ms"])


def _purchases(row: Mapping[str, Any]) -> Purchases:
    return Purchases(row["item_ids"], row["counts"], row["first_times_ms"], row["last_times_ms"])


def _profiles(users: Path, keys: Sequence[str]) -> dict[str, list[tuple[Profile, int]]]:
    """Profile and the time of its last change, of each person who has one."""
    frame = pl.scan_parquet(users).filter(pl.col("shopper").is_in(keys)).collect()
    return {
        row["shopper"]: [(Profile(row["age"], row["gender"], row["country"]), row["updated_time_ms"])]
        for row in frame.to_dicts()
    }


def _vectors(folder: Path, keys: Sequence[str]) -> dict[str, list[tuple[int, LongInterest]]]:
    """The vectors of each shopper with the time at which their file was written, ascending."""
    found: dict[str, list[tuple[int, LongInterest]]] = {}
    for path in sorted(folder.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns):
        written_ms = path.stat().st_mtime_ns // 1_000_000
        rows = pl.scan_parquet(path).filter(pl.col("shopper").is_in(keys)).collect()
        for row in rows.to_dicts():
            interest = LongInterest(np.array(row["vector"], np.float32), row["encoded_through_ms"])
            found.setdefault(row["shopper"], []).append((written_ms, interest))
    return found
