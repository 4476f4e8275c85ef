"""Stops asking a part that does not answer, so that a dead one costs a request nothing; lets a trial through."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from server.metrics import BREAKER_OPEN

LOG = logging.getLogger(__name__)


class Breaker:
    """Opens after `failures` in a row; from then on one trial is let through every `retry_s` until one succeeds.

    Args:
        shown: whether the metrics have it.
    """

    def __init__(
        self,
        name: str,
        *,
        failures: int = 3,
        retry_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        shown: bool = True,
    ) -> None:
        self._name = name
        self._limit = failures
        self._retry_s = retry_s
        self._clock = clock
        self._failures = 0
        self._next_trial_s = 0.0
        self._open_gauge = BREAKER_OPEN.labels(name) if shown else None

    @property
    def open(self) -> bool:
        """Whether the part counts as gone."""
        return self._failures >= self._limit

    def allows(self) -> bool:
        """Whether to ask the part now; a True while open is the trial and is not given twice."""
        if not self.open:
            return True
        if self._clock() < self._next_trial_s:
            return False
        self._next_trial_s = self._clock() + self._retry_s
        return True

    def succeeded(self) -> None:
        """The part has answered."""
        if self.open:
            LOG.info("part=%s answers again", self._name)
            self._show(0)
        self._failures = 0

    def failed(self, why: str) -> None:
        """The part has failed or was too slow."""
        self._failures += 1
        if self._failures == self._limit:
            self._show(1)
            LOG.warning("part=%s stopped answering, serving without it: %s", self._name, why)
            self._next_trial_s = self._clock() + self._retry_s

    def _show(self, value: int) -> None:
        if self._open_gauge is not None:
            self._open_gauge.set(value)


class Breakers:
    """One for each release that is held ready: one that fails costs the others nothing."""

    def __init__(self) -> None:
        self._of: dict[int, Breaker] = {}

    def hold(self, release: int) -> None:
        """The release is asked from now on."""
        self._of[release] = Breaker(f"triton release={release}")

    def of(self, release: int) -> Breaker:
        """The release's own; one that is not held has none, and each of its late requests gets a new one."""
        return self._of.get(release) or Breaker(f"triton release={release}", shown=False)

    def forget(self, release: int) -> None:
        """The release is no longer asked: what was wrong with it is no alarm any more."""
        if self._of.pop(release, None) is not None:
            BREAKER_OPEN.remove(f"triton release={release}")
