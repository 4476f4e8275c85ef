"""Which releases Triton holds, and that they answer. One elected process drives Triton; the others wait for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence

import numpy as np

from features.inputs.shopper import ShopperQuery, merge
from features.schema import CONTENT_TOKENS, FUSION_MODEL, ITEM_TOWER_MODEL
from server.catalogue.catalogue_index import CatalogueIndex
from server.errors import ModelUnavailable
from server.hydrate.fusion_request import NO_CANDIDATES, FusionRequest
from server.infer.triton import Triton
from server.releases.election import Election
from server.releases.loaded_release import LoadedRelease
from server.releases.recorded_requests import shapes

LOG = logging.getLogger(__name__)

MODELS = (FUSION_MODEL, ITEM_TOWER_MODEL)
"""In the order of loading: the first is enough for most answers."""


class TritonVersions:
    """Asks Triton for releases, both models of each."""

    def __init__(self, triton: Triton, election: Election, index: CatalogueIndex) -> None:
        self._triton = triton
        self._election = election
        self._index = index
        self._held: tuple[int, ...] = ()
        """What Triton was last told to hold, by this process; empty where that is not known."""

    @property
    def drives(self) -> bool:
        """Whether this process is the one that loads and unloads."""
        won = self._election.won()
        if not won:
            self._held = ()
        return won

    async def serves(self, number: int) -> bool:
        """Whether Triton says that both models of a release are ready; only an inference shows that they are."""
        return all([await self._triton.serves(model, number) for model in MODELS])

    async def load(self, number: int, *, beside: Iterable[int] = ()) -> None:
        """Has Triton hold a release beside others that it holds; does nothing where it is there.

        Raises:
            ModelUnavailable: Triton refuses, or another process is to load it and has not yet.
        """
        if await self.serves(number):
            return
        if not self.drives:
            raise ModelUnavailable(f"another process loads release {number}", reason="slow")
        await self._hold_all({number, *beside})

    async def hold(self, numbers: Iterable[int]) -> None:
        """Has Triton hold exactly these releases; does nothing in a process that does not drive it.

        Raises:
            ModelUnavailable: Triton refuses.
        """
        wanted = set(numbers)
        if self.drives and wanted != set(self._held):
            await self._hold_all(wanted)

    async def renew(self, number: int, *, beside: Iterable[int]) -> None:
        """Loads a release anew that does not answer; what Triton holds beside it goes on, what it lost comes back too.

        Raises:
            ModelUnavailable: Triton refuses.
        """
        if self.drives:
            LOG.warning("release=%d is held and does not answer, loading it anew", number)
            others = set(beside) - {number}
            await self._hold_all([other for other in others if await self.serves(other)])
            await self._hold_all({number, *others})  # a load does nothing for a version that is there

    async def probe(self, release: LoadedRelease, batches: Iterable[int]) -> None:
        """Real inferences at each batch size, both models.

        Raises:
            ModelUnavailable: one failed.
        """
        nobody = merge([], ShopperQuery(user_id="", session_id="", now_ms=time.time_ns() // 1_000_000))
        request = FusionRequest(nobody, release, self._index, allowed=b"\0", candidates=NO_CANDIDATES)
        for batch in batches:
            await self._triton.fuse_batch([request] * batch)
            await self._triton.item_vectors(release.number, np.zeros((batch, CONTENT_TOKENS), np.int32))

    async def warm_up(self, requests: Sequence[FusionRequest]) -> None:
        """Has real requests answered, alone and together, twice: TorchScript compiles for what the first one showed.

        Raises:
            ModelUnavailable: one failed.
        """
        for same_shape in shapes(requests):
            for batch in (same_shape[:1], same_shape) * 2:
                await self._triton.fuse_batch(batch)
        LOG.info("answered %d recorded requests to warm up", len(requests))

    async def _hold_all(self, numbers: Iterable[int]) -> None:
        versions = tuple(sorted(numbers))
        self._held = ()
        for model in MODELS:
            started_s = time.monotonic()
            await self._triton.hold(model, versions)
            LOG.info("loaded model=%s versions=%s seconds=%.1f", model, versions, time.monotonic() - started_s)
        self._held = versions
