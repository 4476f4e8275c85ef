"""Brings the wanted release into service and keeps it there.

Every gateway process follows the release table and switches in memory. The one that holds the lock also drives
Triton to what is wanted: it loads, and after Triton's restart or a dead backend loads again. Whether a release
serves is only ever judged by an inference. The release that was live before stays loaded: a rollback loads nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from features.release import ReleaseError, ReleaseFiles, read_release
from features.releases import ReleaseTable
from features.schema import CONTENT_TOKENS, FUSION_MODEL, ITEM_TOWER_MODEL
from features.shopper import ShopperQuery, merge
from server.catalogue.catalogue_follower import CatalogueFollower
from server.catalogue.catalogue_index import CatalogueIndex
from server.errors import ModelUnavailable
from server.hydrate.feature_reader import FeatureReader
from server.hydrate.fusion_request import fusion_request, no_candidates
from server.infer.breaker import Breaker
from server.infer.triton import Triton
from server.releases.election import Election
from server.releases.loaded_release import LoadedRelease

LOG = logging.getLogger(__name__)

MODELS = (FUSION_MODEL, ITEM_TOWER_MODEL)
"""In the order of loading: the first is enough for most answers."""

POLL_S = 0.25
PROBE_S = 1.0
"""Between two looks at a model that answers; one that does not is looked at every `POLL_S`."""
KEEP_OLD_S = 2.0
"""Time for calls under way, and for other processes, to leave a release that was replaced."""
FAILURES_TO_RELOAD = 2
SLOW_TO_RELOAD = 3
"""Probes in a row that fail, or are slow, before the model is loaded again."""


class ReleaseFollower:
    """`current` is the release in service, or None."""

    def __init__(
        self,
        *,
        engine: Engine,
        repository: Path,
        index: CatalogueIndex,
        catalogue: CatalogueFollower,
        features: FeatureReader,
        triton: Triton,
        election: Election,
        breaker: Breaker,
        threads: Executor,
    ) -> None:
        self.current: LoadedRelease | None = None
        self.settled = asyncio.Event()
        """Set once the wanted release has served, was refused, or there is none."""
        self._table = ReleaseTable(engine)
        self._repository = repository
        self._index = index
        self._catalogue = catalogue
        self._features = features
        self._triton = triton
        self._election = election
        self._breaker = breaker
        self._threads = threads
        self._refused: int | None = None
        self._loaded: tuple[int, ...] = ()
        """Versions that Triton was last told to hold, by this process."""
        self._unkept: int | None = None
        """The release before the live one, if it could not be kept loaded."""
        self._said = ""
        self._failed_probes = 0
        self._switched_s = 0.0

    async def follow(self) -> None:
        """Runs for ever; what goes wrong is logged once and tried again."""
        next_probe_s = 0.0
        while True:
            try:
                await self._step()
                if self.current is not None and time.monotonic() >= next_probe_s:
                    await self._watch(self.current)
                    next_probe_s = time.monotonic() + (0.0 if self._failed_probes else PROBE_S)
            except (SQLAlchemyError, ModelUnavailable, OSError) as error:
                self._say(f"waiting: {error}")
            except Exception:
                LOG.exception("following the release table failed, trying again")
            await asyncio.sleep(POLL_S)

    async def _step(self) -> None:
        loop = asyncio.get_running_loop()
        standing = await loop.run_in_executor(self._threads, self._table.standing)
        wanted = standing.live
        if wanted != self._refused:
            self._refused = None
        if wanted is None or wanted == self._refused:
            if wanted is None and self.current is not None:
                LOG.info("release=%d leaves service, none is live", self.current.number)
                self._catalogue.drop(self.current)
                self.current = None
            self.settled.set()
            return
        if self.current is not None and self.current.number == wanted:
            await self._keep_loaded(wanted, standing.previous)
            return
        try:
            files = await loop.run_in_executor(self._threads, self._read, wanted)
        except ReleaseError as error:
            LOG.error("release=%d is refused, release=%d stays: %s", wanted, self._number(), error)
            self._refused = wanted
            return
        if not await self._features.serves(wanted):
            self._say(f"release={wanted} waits for its feature view; run `python -m features apply`")
            return
        release = LoadedRelease(files, self._index)
        await self._load(wanted, keep=self._number())
        await self._catalogue.prepare(release)
        await self._probe(release, batches=(1, 4, 16))
        await self._switch(release)

    async def _switch(self, release: LoadedRelease) -> None:
        before, self.current = self.current, release
        self._failed_probes = 0
        self._breaker.succeeded()
        self.settled.set()
        self._say("")
        LOG.info("release=%d is in service, items=%d", release.number, release.rows.size)
        self._switched_s = time.monotonic()
        if before is not None:
            self._catalogue.drop(before)

    async def _keep_loaded(self, live: int, previous: int | None) -> None:
        """Has Triton hold the release in service and the one before, and no other, once calls have left the last."""
        if time.monotonic() - self._switched_s < KEEP_OLD_S or not self._election.won():
            return
        spare = None if previous == self._unkept else previous
        wanted = (live,) if spare is None else tuple(sorted((live, spare)))
        if not self._loaded and all([await self._serves(version) for version in wanted]):
            self._loaded = wanted
        if wanted == self._loaded:
            return
        try:
            if spare is not None:
                await asyncio.get_running_loop().run_in_executor(self._threads, self._read, spare)
            await self._load_versions(wanted)
        except (ReleaseError, ModelUnavailable) as error:
            if spare is None or (isinstance(error, ModelUnavailable) and error.reason == "gone"):
                raise
            self._unkept = spare
            LOG.warning("release=%d is not kept loaded beside release=%d: %s", spare, live, error)

    def _read(self, number: int) -> ReleaseFiles:
        return read_release(self._repository / FUSION_MODEL / str(number))

    async def _serves(self, number: int) -> bool:
        return all([await self._triton.serves(model, number) for model in MODELS])

    async def _load(self, number: int, *, keep: int = 0) -> None:
        if await self._serves(number):
            return
        if not self._election.won():
            raise ModelUnavailable(f"another process loads release {number}")
        await self._load_versions(tuple(sorted({number, keep} - {0})))

    async def _load_versions(self, versions: tuple[int, ...]) -> None:
        self._loaded = ()
        for model in MODELS:
            await self._load_model(model, versions)
        self._loaded = versions

    async def _load_model(self, model: str, versions: tuple[int, ...]) -> None:
        started_s = time.monotonic()
        await self._triton.load(model, versions)
        LOG.info("loaded model=%s versions=%s seconds=%.1f", model, versions, time.monotonic() - started_s)

    async def _probe(self, release: LoadedRelease, batches: tuple[int, ...]) -> None:
        """Real inferences at each batch size, both models."""
        nobody = merge([], ShopperQuery(user_id="", session_id="", now_ms=time.time_ns() // 1_000_000))
        request = fusion_request(nobody, release, self._index, allowed=b"\0", candidates=no_candidates())
        for batch in batches:
            await self._triton.fuse_batch([request] * batch)
            await self._triton.item_vectors(release.number, np.zeros((batch, CONTENT_TOKENS), np.int32))

    async def _watch(self, release: LoadedRelease) -> None:
        try:
            await self._probe(release, batches=(1,))
        except ModelUnavailable as error:
            self._failed_probes += 1
            self._breaker.failed(str(error))
            if error.reason == "gone" or not self._election.won():
                return
            if error.reason == "failed" and not await self._triton.serves(FUSION_MODEL, release.number):
                await self._load(release.number)  # Triton was started again, and has loaded nothing
            elif self._failed_probes % (SLOW_TO_RELOAD if error.reason == "slow" else FAILURES_TO_RELOAD) == 0:
                await self._reload(release.number)
            return
        self._failed_probes = 0
        self._breaker.succeeded()

    async def _reload(self, number: int) -> None:
        """Loads again; a model that claims to be ready and fails is unloaded first, else a load does nothing."""
        self._loaded = ()
        for model in MODELS:
            if await self._triton.serves(model, number):
                LOG.warning("model=%s release=%d says ready and fails, loading it anew", model, number)
                await self._triton.unload(model)
            await self._load_model(model, (number,))
        self._loaded = (number,)

    def _number(self) -> int:
        return self.current.number if self.current else 0

    def _say(self, message: str) -> None:
        """Logs a state once, not every time that it is found unchanged."""
        if message and message != self._said:
            LOG.warning("%s", message)
        self._said = message
