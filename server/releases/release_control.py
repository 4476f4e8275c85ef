"""What people ask of releases: a change goes into the table, and the answer waits until this process has followed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Engine

from features.releases.release import ReleaseError, read_placed
from features.releases.release_table import Change, NoSuchRelease, ReleaseRow, ReleaseTable
from server.deadline import Deadline
from server.errors import DeadlinePassed, NotFound, NotPossible
from server.infer.triton import LOAD_S
from server.record.database_work import DatabaseWork
from server.releases.release_follower import ReleaseFollower

T = TypeVar("T")

READ_S = 600.0
"""For all files of a release: it may be large, and the disk cold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseReport:
    """A release as the table and this process have it."""

    row: ReleaseRow
    changes: Sequence[Change]
    loaded: bool
    serving: bool
    refusal: str


class ReleaseControl:
    """The release table behind ReleaseService. Every method raises NotFound for a release that there is not."""

    def __init__(self, engine: Engine, repository: Path, follower: ReleaseFollower, *, budget_s: float) -> None:
        self._table = ReleaseTable(engine)
        self._repository = repository
        self._follower = follower
        self._work = DatabaseWork("the releases", budget_s=budget_s)
        self._files = ThreadPoolExecutor(1, thread_name_prefix="release-files")

    async def page(self, below: int | None, limit: int, deadline: Deadline) -> list[ReleaseReport]:
        """At most so many releases, newest first, without their changes."""
        rows = await self._work.read(lambda: self._table.page(below, limit), deadline)
        return [self._report(row, ()) for row in rows]

    async def get(self, release: int, deadline: Deadline) -> ReleaseReport:
        """One release, with its changes."""
        row, changes = await _known(
            self._work.read(lambda: (self._table.of(release), self._table.changes(release)), deadline)
        )
        return self._report(row, changes)

    async def load(self, release: int, who: str, why: str, deadline: Deadline) -> ReleaseReport:
        """Has it held ready, and returns when this process does.

        Raises:
            NotPossible: it cannot be.
            DeadlinePassed: it is not yet, or its files are not read yet.
        """
        await self._check_files(release, deadline)
        await self._change(lambda: self._table.load(release, who, why), deadline)
        return await self._outcome(release, lambda: release in self._follower.loaded, deadline)

    async def promote(self, release: int, who: str, why: str, deadline: Deadline) -> ReleaseReport:
        """Makes it live, and returns when this process answers from it.

        Raises:
            NotPossible: it cannot serve; the release before does.
            DeadlinePassed: it does not yet, or its files are not read yet.
        """
        await self._check_files(release, deadline)
        await self._change(lambda: self._table.change_state(release, "live", who, why), deadline)
        return await self._outcome(release, lambda: self._serves(release), deadline)

    async def rollback(self, who: str, why: str, deadline: Deadline) -> tuple[ReleaseReport, int]:
        """Brings back the release that was live before; returns it and the one that has failed.

        Raises:
            NotPossible: there is none, or it cannot serve.
            DeadlinePassed: it does not serve yet.
        """
        live, failed = await self._change(lambda: self._table.rollback(who, why), deadline)
        return await self._outcome(live, lambda: self._serves(live), deadline), failed

    async def retire(self, release: int, who: str, why: str, deadline: Deadline) -> ReleaseReport:
        """Takes it out of the running.

        Raises:
            NotPossible: it is live.
        """
        await self._change(lambda: self._table.retire(release, who, why), deadline)
        return await self.get(release, deadline)

    def close(self) -> None:
        """Ends the threads after the work under way."""
        self._files.shutdown(wait=True, cancel_futures=True)
        self._work.close()

    async def _check_files(self, release: int, deadline: Deadline) -> None:
        """Refuses what is not whole before the table says anything of it."""
        await _known(self._work.read(lambda: self._table.of(release), deadline))
        if release not in self._follower.loaded:
            reading = asyncio.get_running_loop().run_in_executor(self._files, read_placed, self._repository, release)
            try:
                await asyncio.wait_for(reading, deadline.left_s(READ_S))
            except asyncio.TimeoutError:
                raise DeadlinePassed(
                    f"the files of release {release} are still being read, nothing was changed; call again with a "
                    "longer deadline"
                ) from None
            except ReleaseError as error:
                raise NotPossible(f"release {release} cannot serve: {error}") from None

    async def _change(self, change: Callable[[], T], deadline: Deadline) -> T:
        try:
            return await _known(self._work.write(change, deadline))
        except ReleaseError as error:
            raise NotPossible(str(error)) from None

    async def _outcome(self, release: int, done: Callable[[], bool], deadline: Deadline) -> ReleaseReport:
        """Waits until this process has followed what was just decided of a release."""
        seen = (await self._work.read(self._table.standing, deadline)).decision
        follower = self._follower

        def followed() -> bool:
            standing = follower.standing
            wanted = release == standing.live or release in standing.spares
            return standing.decision >= seen and (done() or not wanted or bool(follower.refusal(release)))

        in_time = await follower.until(followed, max(0.0, deadline.left_s(2 * LOAD_S)))
        if not in_time:
            waits = f" ({follower.waiting_for})" if follower.waiting_for else ""
            raise DeadlinePassed(
                f"release {release} is still being loaded{waits} and what served before goes on; GetRelease says how "
                "it ends"
            )
        report = await self.get(release, deadline)
        if not done():
            reason = report.refusal or (report.changes[-1].why if report.changes else "")
            raise NotPossible(f"release {release} cannot serve, what served before goes on: {reason}")
        return report

    def _serves(self, release: int) -> bool:
        current = self._follower.current
        return current is not None and current.number == release

    def _report(self, row: ReleaseRow, changes: Sequence[Change]) -> ReleaseReport:
        return ReleaseReport(
            row=row,
            changes=changes,
            loaded=row.release in self._follower.loaded,
            serving=self._serves(row.release),
            refusal=self._follower.refusal(row.release),
        )


async def _known(work: Awaitable[T]) -> T:
    try:
        return await work
    except NoSuchRelease as error:
        raise NotFound(f"release: {error}") from None
