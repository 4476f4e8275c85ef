"""Brings the wanted release into service and keeps it there.

Every gateway process follows the release table and switches in memory. Besides the live release it holds ready the one
before it and those that the table names: a rollback or a promotion of one of them loads nothing. The elected process
also drives Triton to what is wanted, and records what cannot serve as failed. Whether a release serves is only ever
judged by an inference.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from features.releases.release import ReleaseError, ReleaseFiles, read_placed
from features.releases.release_table import ReleaseTable, Standing
from features.schema import interest_view
from server.catalogue.catalogue_follower import CatalogueFollower
from server.errors import ModelUnavailable
from server.hydrate.feature_reader import FeatureReader
from server.infer.breaker import Breakers
from server.releases.loaded_release import LoadedRelease
from server.releases.recorded_requests import RecordedRequests
from server.releases.release_watch import ReleaseWatch
from server.releases.triton_versions import TritonVersions

LOG = logging.getLogger(__name__)

POLL_S = 0.25
STANDING_S = 1.0
"""Longest wait for the release table: a database that hangs keeps nobody from watching what serves."""
KEEP_OLD_S = 2.0
"""Time for calls under way, and for other processes, to leave a release that was replaced."""
FIRST_BATCHES = (1, 4, 16)
"""What a release answers before it serves; one that is held ready answers the first again."""
FAILURES_TO_REFUSE = 3
"""Attempts to load a release, or to have it answer, until it is refused."""
RETRY_S = 5.0
"""Where nothing else serves, a release that was refused is tried again after as long."""
RECORDED_BY = "gateway"
"""`who` of the changes that a gateway makes by itself."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a release is not taken, and when that was found, on the monotonic clock."""

    reason: str
    at_s: float


class ReleaseFollower:
    """`current` is the release in service, or None; `loaded` are those held ready, it included, by number."""

    def __init__(
        self,
        *,
        engine: Engine,
        repository: Path,
        catalogue: CatalogueFollower,
        features: FeatureReader,
        versions: TritonVersions,
        recorded: RecordedRequests,
        breakers: Breakers,
        threads: Executor,
    ) -> None:
        self.current: LoadedRelease | None = None
        self.loaded: dict[int, LoadedRelease] = {}
        self.standing = Standing(None, None)
        """What the table said last."""
        self.settled = asyncio.Event()
        """Set once the wanted release has served, was refused, or there is none."""
        self._table = ReleaseTable(engine)
        self._repository = repository
        self._catalogue = catalogue
        self._features = features
        self._versions = versions
        self._recorded = recorded
        self._breakers = breakers
        self._watch = ReleaseWatch(versions, breakers, self.loaded)
        self._threads = threads
        self._refused: dict[int, Refusal] = {}
        self._failed_attempts: dict[int, int] = {}
        self._silent: int | None = None
        """What was live before, where it hangs while nothing serves yet; Triton keeps it, others may use it."""
        self._said: dict[str, str] = {}
        self._switched_s = 0.0
        self._hurry = asyncio.Event()
        self._looked = asyncio.Condition()

    async def follow(self) -> None:
        """Runs for ever; what goes wrong is logged once and tried again."""
        while True:
            self._hurry.clear()
            # a switch that has to wait keeps nobody from watching what serves
            for part in (self._step, self._look, self._look_beside):
                await self._try(part)
            async with self._looked:
                self._looked.notify_all()
            try:
                await asyncio.wait_for(self._hurry.wait(), POLL_S)
            except asyncio.TimeoutError:
                continue

    async def _try(self, part: Callable[[], Awaitable[None]]) -> None:
        message, unexpected = "", False
        try:
            await part()
        except (SQLAlchemyError, ModelUnavailable, OSError) as error:
            message = f"waiting: {error}"
        except Exception as error:
            message, unexpected = f"following the release table failed, trying again: {error!r}", True
        if message and message != self._said.get(part.__name__):  # once, not every time that it is found unchanged
            LOG.log(logging.ERROR if unexpected else logging.WARNING, "%s", message, exc_info=unexpected)
        self._said[part.__name__] = message

    async def until(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Has the table looked at now, and waits until a condition on this object holds; False: it does not yet."""
        self._hurry.set()
        async with self._looked:
            try:
                return await asyncio.wait_for(self._looked.wait_for(done), timeout_s)
            except asyncio.TimeoutError:
                return False

    def refusal(self, number: int) -> str:
        """Why this process does not take a release; empty where nothing speaks against it."""
        refused = self._refused.get(number)
        return refused.reason if refused else ""

    @property
    def switching(self) -> bool:
        """Whether a release is being made ready, which takes its share of the cores."""
        wanted = (self.standing.live, *self.standing.spares)
        return any(it is not None and it not in self.loaded and not self._refuses(it) for it in wanted)

    @property
    def waiting_for(self) -> str:
        """What keeps this process from what is wanted, if anything."""
        return self._said.get(self._step.__name__, "")

    async def _step(self) -> None:
        standing = await self._decided()
        if standing.decision != self.standing.decision:
            self._refused.clear()
            self._failed_attempts.clear()
            self._silent = None
        self.standing = standing
        number = await self._next(standing)
        if number is not None and number != self._number():
            release = await self._ready(number)
            if release is not None:
                self._switch(release)
        elif number is None:
            if standing.live is None and self.current is not None:
                LOG.info("release=%d leaves service, none is live", self.current.number)
                self.current = None
                self._drop(*self.loaded)
            self.settled.set()
        if self.current is not None:
            await self._record_refusals(standing, self.current.number)
            if standing.live == self.current.number:
                await self._keep(standing)

    async def _decided(self) -> Standing:
        """What the table says now.

        Raises:
            SQLAlchemyError, TimeoutError: the database does not answer.
        """
        loop = asyncio.get_running_loop()
        reading = loop.run_in_executor(self._threads, self._table.standing, self.standing)
        try:
            return await asyncio.wait_for(reading, STANDING_S)
        except asyncio.TimeoutError:
            raise TimeoutError(f"the database does not tell the releases within {STANDING_S:g} s") from None

    async def _next(self, standing: Standing) -> int | None:
        """What this process is to answer from: the live release, or the one before where that is all that can serve."""
        live, previous = standing.live, standing.previous
        if live is None:
            return None
        fallback = previous if previous is not None and not self._refuses(previous) else None
        if self._refuses(live):
            return self.current.number if self.current is not None else fallback
        if self.current is not None or fallback is None or fallback == self._silent:
            return live
        if await self._versions.serves(live):
            return live
        # a switch is under way where Triton has only what was live: that answers meanwhile
        return fallback if await self._versions.serves(fallback) else live

    async def _ready(self, number: int) -> LoadedRelease | None:
        """A release that Triton holds and has answered from, held ready from now on; None where it is refused.

        Raises:
            ModelUnavailable: not yet, it is tried again.
        """
        try:
            release = self.loaded.get(number) or await self._new(number)
            beside = self.loaded if self._silent is None else (*self.loaded, self._silent)
            await self._versions.load(number, beside=beside)
            await self._versions.probe(release, FIRST_BATCHES[:1] if number in self.loaded else FIRST_BATCHES)
            if number not in self.loaded:
                await self._catalogue.prepare(release)
                await self._versions.warm_up(await self._recorded.for_release(release))
                self.loaded[number] = release
                self._breakers.hold(number)
        except ReleaseError as error:
            self._refuse(number, str(error))
            return None
        except ModelUnavailable as error:
            if error.reason == "slow" and self.current is None and number != self.standing.live:
                self._silent = number
            if error.reason == "slow" and self.current is not None:
                await self._watch.hangs(number)
            if error.reason != "failed" or not self._versions.drives:
                raise
            self._failed_attempts[number] = self._failed_attempts.get(number, 0) + 1
            if self._failed_attempts[number] < FAILURES_TO_REFUSE:
                raise
            self._refuse(number, str(error))
            return None
        self._failed_attempts.pop(number, None)
        self._refused.pop(number, None)
        self._watch.answers(number)
        return release

    async def _new(self, number: int) -> LoadedRelease:
        loop = asyncio.get_running_loop()
        files = await loop.run_in_executor(self._threads, self._read, number)
        if not await self._features.serves(number):
            raise ModelUnavailable(
                f"release {number} has no feature view {interest_view(number)}; run `python -m features apply`"
            )
        rows = await self._catalogue.rows_of(files.items)
        return await loop.run_in_executor(self._threads, LoadedRelease, files, rows)

    def _switch(self, release: LoadedRelease) -> None:
        self.current = release
        self._silent = None
        self._watch.serves(release.number)
        self.settled.set()
        LOG.info("release=%d is in service, items=%d", release.number, release.rows.size)
        self._switched_s = time.monotonic()

    async def _keep(self, standing: Standing) -> None:
        """Holds ready what is to be, and nothing else, once calls have left the release that was replaced."""
        if time.monotonic() - self._switched_s < KEEP_OLD_S:
            return
        wanted = [number for number in (self._number(), *standing.spares) if not self._refuses(number)]
        self._drop(*self.loaded.keys() - set(wanted))
        self._watch.forget_all_but(wanted)
        late: ModelUnavailable | None = None
        for number in wanted:
            if number not in self.loaded:
                try:
                    await self._ready(number)
                except ModelUnavailable as error:
                    late = error  # keeps no other from being held, nor from being dropped
        await self._versions.hold(number for number in wanted if number in self.loaded or number in self._watch.hung)
        if late is not None:
            raise late

    def _drop(self, *numbers: int) -> None:
        for number in numbers:
            self._catalogue.drop(self.loaded.pop(number))
            self._breakers.forget(number)

    async def _record_refusals(self, standing: Standing, serving: int) -> None:
        """A release that is wanted and cannot serve has failed; only a process that serves another says so."""
        for number in (standing.live, *standing.spares):
            if number is not None and number != serving and self._refuses(number) and self._versions.drives:
                fail = self._table.fail
                reason = self._refused[number].reason
                await asyncio.get_running_loop().run_in_executor(
                    self._threads, fail, number, serving, standing, RECORDED_BY, reason
                )
                return  # the next standing says what is left

    def _read(self, number: int) -> ReleaseFiles:
        return read_placed(self._repository, number)

    async def _look(self) -> None:
        if self.current is not None:
            await self._watch.look_at(self.current)

    async def _look_beside(self) -> None:
        if self.current is not None:
            await self._watch.look_beside(self.current)

    def _refuse(self, number: int, reason: str) -> None:
        if self.refusal(number) != reason:
            LOG.error("release=%d is refused, release=%d stays: %s", number, self._number(), reason)
        self._refused[number] = Refusal(reason, time.monotonic())
        self._failed_attempts.pop(number, None)

    def _refuses(self, number: int) -> bool:
        """Whether a release is not to be tried now."""
        refused = self._refused.get(number)
        if refused is None:
            return False
        return self.current is not None or time.monotonic() - refused.at_s < RETRY_S

    def _number(self) -> int:
        return self.current.number if self.current else 0
