"""What callers asked of late, as requests to a release that is about to serve: its model is warm with real ones.

They are made anew, with the shopper's features of this moment and the long-term vector that belongs to the release: an
item's index and a vector mean nothing in another release.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from features.answers.answers import RecentRequest, recent_requests
from features.inputs.shopper import merge
from server.catalogue.catalogue_index import CatalogueIndex
from server.deadline import Deadline
from server.errors import FeaturesUnavailable
from server.hydrate.feature_reader import FeatureReader
from server.hydrate.fusion_request import NO_CANDIDATES, FusionRequest, candidates_of
from server.releases.loaded_release import LoadedRelease

LOG = logging.getLogger(__name__)

MOST = 16
"""Requests; warming up holds up the switch, and every shape is among the first few."""
FEATURES_S = 1.0


class RecordedRequests:
    """Reads the table `answers`."""

    def __init__(self, engine: Engine, index: CatalogueIndex, features: FeatureReader, threads: Executor) -> None:
        self._engine = engine
        self._index = index
        self._features = features
        self._threads = threads

    async def for_release(self, release: LoadedRelease) -> list[FusionRequest]:
        """At most `MOST` requests, newest first; none where nothing is recorded or a store does not answer."""
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, recent_requests, self._engine, MOST)
            return [await self._request(asked, release) for asked in found]
        except (SQLAlchemyError, FeaturesUnavailable) as error:
            LOG.warning("release=%d is not warmed up with recorded requests: %s", release.number, error)
            return []

    async def _request(self, asked: RecentRequest, release: LoadedRelease) -> FusionRequest:
        rows = await self._features.read(asked.query.keys, release.number, Deadline.after(FEATURES_S))
        ranked = asked.ranked_item_ids
        return FusionRequest(
            merge(rows, asked.query),
            release,
            self._index,
            allowed=b"\0" if ranked else _every_item(release),
            candidates=candidates_of(self._index.rows(ranked), release) if ranked else NO_CANDIDATES,
        )


def shapes(requests: Sequence[FusionRequest]) -> list[list[FusionRequest]]:
    """The requests that may go together, for each shape."""
    found: dict[tuple[int, int, int], list[FusionRequest]] = {}
    for request in requests:
        found.setdefault(request.shape_class, []).append(request)
    return list(found.values())


def _every_item(release: LoadedRelease) -> bytes:
    """A mask of the width that a filter's has, or that of what is in stock."""
    return np.full(max(2, math.ceil(release.rows.size / 8)), 0xFF, np.uint8).tobytes()
