"""Requests that a shadow release is to answer too: copied off the request's path, bounded, dropped when there is much.

What the request does here is one append. A copy is dropped where too many wait, or where more than half of the calls
that are let in are under way: what shoppers wait for comes first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from server.metrics import SHADOW_COPIES
from server.queries import Recommendation, RecommendQuery
from server.releases.loaded_release import LoadedRelease
from server.select.filters import Excluded

MOST_WAITING = 32


@dataclass(frozen=True, slots=True)
class Copy:
    """A request, and what was answered to it."""

    experiment: str
    shadow: LoadedRelease
    query: RecommendQuery
    left_out: Excluded
    """As it was for the answer, which counts as shown by now."""
    answer: Recommendation
    took_ms: float


class ShadowQueue:
    """One a process.

    Args:
        busy: whether there is no time for shadows now.
    """

    def __init__(self, busy: Callable[[], bool]) -> None:
        self._busy = busy
        self._waiting: deque[Copy] = deque()
        self._some = asyncio.Event()
        self.dropped: dict[tuple[str, int, int], int] = {}
        """By experiment, shadow and release, until somebody takes the count."""

    def offer(self, copy: Copy) -> None:
        """Takes a copy, or drops and counts it; returns at once."""
        if len(self._waiting) >= MOST_WAITING or self._busy():
            key = copy.experiment, copy.shadow.number, copy.answer.release
            self.dropped[key] = self.dropped.get(key, 0) + 1
            SHADOW_COPIES.labels("dropped").inc()
            return
        self._waiting.append(copy)
        self._some.set()

    async def take(self) -> Copy:
        """The next copy, as soon as there is one."""
        while not self._waiting:
            self._some.clear()
            await self._some.wait()
        return self._waiting.popleft()
