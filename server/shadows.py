"""Answers copied requests from their shadow release, one at a time, and counts how the pages differ."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import Executor

from sqlalchemy import Engine

from features.traffic.shadow_statistics import Disagreement, Key, add_disagreements
from server.deadline import Deadline
from server.errors import GatewayError
from server.following import Failures
from server.metrics import SHADOW_COPIES, SHADOW_OVERLAP, SHADOW_SECONDS
from server.recommend import shadow_page
from server.releases.shadow_queue import Copy
from server.shop import Shop

LOG = logging.getLogger(__name__)

BUDGET_S = 1.0
"""For one copy."""
STORE_S = 2.0
"""Between two additions to the table."""


class Shadows:
    """`follow` runs for ever beside the requests."""

    def __init__(self, shop: Shop, engine: Engine, threads: Executor) -> None:
        self._shop = shop
        self._engine = engine
        self._threads = threads
        self._found: dict[Key, Disagreement] = {}
        self._not_copied = Failures(LOG, "requests are not copied to their shadows")
        self._not_stored = Failures(LOG, "what shadows disagree on is not recorded")

    async def follow(self) -> None:
        """Takes copies from the queue; what goes wrong is counted, and concerns no request."""
        store_s = time.monotonic() + STORE_S
        while True:
            try:
                await self._compare(await asyncio.wait_for(self._shop.shadows.take(), STORE_S))
            except asyncio.TimeoutError:
                pass
            except Exception as error:
                self._not_copied.begin(error)
            else:
                self._not_copied.end()
            if time.monotonic() >= store_s:
                await self._store()
                store_s = time.monotonic() + STORE_S

    async def _compare(self, copy: Copy) -> None:
        part = self._of((copy.experiment, copy.shadow.number, copy.answer.release))
        began_s = time.monotonic()
        try:
            item_ids, scores = await shadow_page(self._shop, copy, Deadline.after(BUDGET_S))
        except GatewayError as error:
            LOG.debug("the shadow did not answer: %s", error)
            part.failed += 1
            SHADOW_COPIES.labels("failed").inc()
            return
        took_s = time.monotonic() - began_s
        answer = copy.answer
        given = [place for place, pinned in enumerate(answer.pinned) if not pinned and place != answer.explored]
        given_ids = [answer.item_ids[place] for place in given]
        overlap = part.compare(given_ids, [answer.scores[place] for place in given], item_ids, scores)
        part.release_ms += copy.took_ms
        part.shadow_ms += 1000 * took_s
        SHADOW_COPIES.labels("compared").inc()
        SHADOW_OVERLAP.observe(overlap)
        SHADOW_SECONDS.observe(took_s)

    def _of(self, key: Key) -> Disagreement:
        return self._found.setdefault(key, Disagreement())

    async def _store(self) -> None:
        dropped, self._shop.shadows.dropped = self._shop.shadows.dropped, {}
        for key, count in dropped.items():
            self._of(key).dropped += count
        found, self._found = self._found, {}
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, add_disagreements, self._engine, found)
            self._not_stored.end()
        except Exception as error:
            self._not_stored.begin(error)
