"""The gateway's reads of the online store: those that come together go together, within the request's time, and none
where the store is known to be gone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from features.inputs.shopper import ShopperFeatures
from features.schema import RECENT_VIEW, interest_view
from features.settings import Settings
from server.deadline import Deadline, patient
from server.errors import FeaturesUnavailable
from server.hydrate.online_features import MAX_SHOPPERS, OnlineFeatures, Request
from server.infer.breaker import Breaker
from server.infer.coalescer import Coalescer
from server.stages import FEATURES, Stage

LOG = logging.getLogger(__name__)

REOPEN_S = 2.0
"""Between two attempts to open the store."""

SHARE = 0.5
"""Of what is left; the model needs the rest."""


class FeatureReader:
    """Reads the online store; one object a process."""

    def __init__(self, settings: Settings, budget_s: float, under_way: Callable[[], int] = lambda: 0) -> None:
        """`under_way`: as in `Coalescer`."""
        self._online = OnlineFeatures(settings, give_up_s=2 * budget_s)
        self._budget_s = budget_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feast-reads")
        self._registry_thread = ThreadPoolExecutor(1, thread_name_prefix="feast-registry")
        self._pipe: Coalescer[Request, list[ShopperFeatures]] = Coalescer(
            self._read, line="features", max_batch=MAX_SHOPPERS // 2, under_way=under_way
        )
        self._breaker = Breaker("feature-store")
        self.opened = asyncio.Event()
        """Set once the store has been tried: it is open, or requests go on without it."""

    async def read(self, keys: Sequence[str], release: int, deadline: Deadline) -> list[ShopperFeatures]:
        """The features of each key, in order; one that the store does not know is empty.

        Raises:
            FeaturesUnavailable: the store failed, or did not answer in time.
        """
        if not self._breaker.allows():
            raise FeaturesUnavailable("the feature store does not answer")
        left_s = deadline.left_s(self._budget_s, SHARE)
        asked_s = time.monotonic()
        try:
            with Stage(FEATURES):
                features = await self._pipe.submit((keys, release), left_s)
        except asyncio.TimeoutError:
            deadline.in_vain_s += time.monotonic() - asked_s
            if patient(left_s, self._budget_s):
                self._breaker.failed(f"no answer within {left_s:.3f} s")
            raise FeaturesUnavailable("the feature store was too slow") from None
        except Exception as error:
            self._breaker.failed(repr(error))
            raise FeaturesUnavailable(f"the feature store failed: {error!r}") from error
        self._breaker.succeeded()
        return features

    async def serves(self, release: int) -> bool:
        """Reads the registry again and says whether it has the release's view, also while the store is gone."""
        await self._read_registry()
        with suppress(Exception):  # `follow` says so, and tries again
            await self._open()
        return interest_view(release) in self._online.views

    async def follow(self) -> None:
        """Opens the store, and tries again until it is open and the definitions are applied."""
        quiet = False
        while not self._online.opened or RECENT_VIEW not in self._online.views:
            try:
                await self._read_registry()
                await self._open()
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

    async def _read_registry(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._registry_thread, self._online.read_registry)

    async def _open(self) -> None:
        """Opens the store, where it is not open."""
        if not self._online.opened:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._online.open)

    async def _read(self, requests: Sequence[Request]) -> list[list[ShopperFeatures]]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._online.read, requests)
