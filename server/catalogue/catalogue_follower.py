"""Keeps the catalogue in memory up to date, and gives vectors to items that are younger than the release."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

import numpy as np
import polars as pl
from sqlalchemy import Engine

from features.shop.catalogue import Catalogue, CatalogueItem
from server.catalogue.catalogue_index import CatalogueIndex, Rows
from server.errors import ModelUnavailable
from server.following import Counters, Failures
from server.infer.triton import Triton
from server.metrics import CATALOGUE_READ_TIME_SECONDS
from server.releases.loaded_release import LoadedRelease, catalogue_rows

LOG = logging.getLogger(__name__)

AGAIN_S = 1.0
"""Before what did not answer is asked again."""
AT_LEAST_EVERY_S = 10.0
"""Read again, without news too: `braid_catalogue_read_time_seconds` tells that the database answers."""
CHUNK = 500
"""Items taken in at once: a few milliseconds of the event loop."""

P = ParamSpec("P")
T = TypeVar("T")


class CatalogueFollower:
    """Reads what has changed, by revision; serves every release that is, or is about to be, in service."""

    def __init__(
        self, engine: Engine, index: CatalogueIndex, triton: Triton, counters: Counters, threads: Executor
    ) -> None:
        self._catalogue = Catalogue(engine)
        self._index = index
        self._triton = triton
        self._threads = threads
        self._revision = 0
        self._turn = asyncio.Lock()
        self._changed = counters.news_of(self._catalogue.counter)
        self._releases: list[LoadedRelease] = []
        self.loaded = asyncio.Event()
        """Set once the catalogue has been read to its end."""

    async def refresh(self) -> None:
        """Takes in every change that is committed by now; vectors of new items follow in the background.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        async with self._turn:
            while items := await self._in_thread(self._catalogue.changed_since, self._revision, CHUNK):
                self._index.apply(items)
                self._revision = items[-1].revision
                for release in self._releases:
                    self._note_new(release, items)
                self._changed.set()
            CATALOGUE_READ_TIME_SECONDS.set_to_current_time()
            self.loaded.set()

    async def rows_of(self, items: pl.DataFrame) -> Rows:
        """`catalogue_rows` of a release's items, in portions between which calls go on; a catalogue may be large."""
        portions = [np.zeros(0, np.int32)]
        for portion in items.iter_slices(CHUNK):
            portions.append(catalogue_rows(portion, self._index))
            await asyncio.sleep(0)
        return np.concatenate(portions)

    async def prepare(self, release: LoadedRelease) -> None:
        """Gives vectors to all items that the release does not know, and from now on to those that come.

        Raises:
            SQLAlchemyError, ModelUnavailable: database or Triton do not answer.
        """
        async with self._turn:
            rows = np.arange(len(self._index), dtype=np.int32)
            unknown = np.flatnonzero((release.indices(rows) < 0) & ~self._index.columns.deleted)
            for start in range(0, unknown.size, CHUNK):
                item_ids = [self._index.item_ids[row] for row in unknown[start : start + CHUNK]]
                release.awaiting_vectors |= await self._in_thread(self._catalogue.of, item_ids)
            await self._give_vectors(release)
            self._releases.append(release)

    def drop(self, release: LoadedRelease) -> None:
        """Forgets a release that has left service."""
        self._releases = [other for other in self._releases if other is not release]

    async def follow(self) -> None:
        """Refreshes whenever there is news, for ever; what fails is logged once and tried again."""
        failures = Failures(LOG, "the catalogue in memory stays as it is for now")
        while True:
            self._changed.clear()
            try:
                await self.refresh()
                await self._give_all_vectors()
                failures.end()
            except Exception as error:  # nobody would begin again what ends here
                failures.begin(error)
            try:
                await asyncio.wait_for(self._changed.wait(), AGAIN_S if failures else AT_LEAST_EVERY_S)
            except asyncio.TimeoutError:
                continue

    def _note_new(self, release: LoadedRelease, items: Sequence[CatalogueItem]) -> None:
        for item in items:
            if not item.deleted and not release.knows(item.item_id, self._index):
                release.awaiting_vectors[item.item_id] = item

    async def _give_all_vectors(self) -> None:
        """To each release's new items; one whose model does not answer keeps no other from its own.

        Raises:
            ModelUnavailable: of the last that does not.
        """
        failed = None
        for release in self._releases:
            try:
                await self._give_vectors(release)
            except ModelUnavailable as error:
                failed = error
        if failed is not None:
            raise failed

    async def _give_vectors(self, release: LoadedRelease) -> None:
        items = list(release.awaiting_vectors.values())
        if not items:
            return
        content = await self._in_thread(release.content_codes, items)
        vectors, biases = await self._triton.item_vectors(release.number, content)
        release.new = release.new.replaced(self._index.rows([item.item_id for item in items]), content, vectors, biases)
        for item in items:
            if release.awaiting_vectors.get(item.item_id) is item:
                del release.awaiting_vectors[item.item_id]

    async def _in_thread(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
