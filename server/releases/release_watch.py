"""Has the releases that are loaded answer, now and then, and loads anew what does not.

Triton may call a model ready whose process hangs or has died; only an inference tells. While the release in service
does not answer, nothing is held against the others: it is Triton, or the machine.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from server.errors import ModelUnavailable
from server.infer.breaker import Breakers
from server.releases.loaded_release import LoadedRelease
from server.releases.triton_versions import TritonVersions

PROBE_S = 1.0
"""Between two looks at a model that answers; one that does not is looked at with every call."""
SPARE_PROBE_S = 2.0
"""Between two looks at what is held ready beside it."""
FAILURES_TO_RELOAD = 2
SLOW_TO_RELOAD = 3
"""Probes in a row that fail, or are slow, before the release in service is loaded again."""
HANGS_S = 10.0
"""How long another release may give no answer, while the one in service does, before it is loaded again."""


class ReleaseWatch:
    """One for all releases of a process: those in `loaded`, and one that is about to be."""

    def __init__(self, versions: TritonVersions, breakers: Breakers, loaded: Mapping[int, LoadedRelease]) -> None:
        self._versions = versions
        self._breakers = breakers
        self._loaded = loaded
        self._failed_probes = 0
        """Of the release in service, in a row."""
        self._next_probe_s = 0.0
        self._next_spare_probe_s = 0.0
        self._hangs_since_s: dict[int, float] = {}

    @property
    def hung(self) -> Collection[int]:
        """Releases beside the one in service that Triton has loaded, and that do not answer."""
        return self._hangs_since_s.keys()

    def serves(self, number: int) -> None:
        """A release that has answered is in service from now on."""
        self._failed_probes = 0
        self._breakers.of(number).succeeded()

    def answers(self, number: int) -> None:
        """A release does not hang."""
        self._hangs_since_s.pop(number, None)

    async def hangs(self, number: int) -> None:
        """A release beside the one in service has not answered in time; it is loaded anew where that goes on.

        Raises:
            ModelUnavailable: Triton refuses.
        """
        if self._failed_probes:
            self.answers(number)
        elif time.monotonic() - self._hangs_since_s.setdefault(number, time.monotonic()) >= HANGS_S:
            await self._versions.renew(number, beside=self._loaded)
            self._hangs_since_s[number] = time.monotonic()

    def forget_all_but(self, numbers: Collection[int]) -> None:
        """Only these releases are wanted."""
        for number in self._hangs_since_s.keys() - set(numbers):
            del self._hangs_since_s[number]

    async def look_at(self, serving: LoadedRelease) -> None:
        """Has the release in service answer, where it is time for it.

        Raises:
            ModelUnavailable: it has to be loaded again, and Triton refuses.
        """
        if time.monotonic() < self._next_probe_s:
            return
        try:
            await self._versions.probe(serving, batches=(1,))
        except ModelUnavailable as error:
            self._failed_probes += 1
            self._breakers.of(serving.number).failed(str(error))
            if error.reason != "gone" and self._versions.drives:
                await self._mend(serving.number, error)
            return
        self._failed_probes = 0
        self._next_probe_s = time.monotonic() + PROBE_S
        self._breakers.of(serving.number).succeeded()

    async def look_beside(self, serving: LoadedRelease) -> None:
        """Has those answer that arms, shadows and rollbacks need, where it is time for it.

        Raises:
            ModelUnavailable: as `look_at`.
        """
        if self._failed_probes or time.monotonic() < self._next_spare_probe_s:
            return
        self._next_spare_probe_s = time.monotonic() + SPARE_PROBE_S
        for release in [release for release in self._loaded.values() if release is not serving]:
            try:
                await self._versions.probe(release, batches=(1,))
            except ModelUnavailable as error:
                self._breakers.of(release.number).failed(str(error))
                if error.reason == "failed":
                    await self._versions.renew(release.number, beside=self._loaded)
                elif error.reason == "slow":
                    await self.hangs(release.number)
            else:
                self._breakers.of(release.number).succeeded()
                self.answers(release.number)

    async def _mend(self, number: int, error: ModelUnavailable) -> None:
        if error.reason == "failed" and not await self._versions.serves(number):
            await self._versions.load(number)  # Triton was started again, and has loaded nothing
        elif self._failed_probes % (SLOW_TO_RELOAD if error.reason == "slow" else FAILURES_TO_RELOAD) == 0:
            await self._versions.renew(number, beside=self._loaded)
