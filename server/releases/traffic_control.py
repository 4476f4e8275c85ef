"""What people ask of the traffic: a change goes into the table, and the answer waits until this process follows it."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine

from features.releases.release import ReleaseError
from features.traffic.split import Split, TrafficError, TrafficNotPossible, Wanted
from features.traffic.traffic_table import NotedChange, TrafficTable
from server.deadline import Deadline
from server.errors import InvalidRequest, NotFound, NotPossible, Violation
from server.following import take_in
from server.record.database_work import DatabaseWork
from server.releases.release_follower import ReleaseFollower
from server.releases.traffic import Traffic


class TrafficControl:
    """The traffic's tables behind ReleaseService."""

    def __init__(self, engine: Engine, traffic: Traffic, releases: ReleaseFollower, *, budget_s: float) -> None:
        self._table = TrafficTable(engine)
        self._traffic = traffic
        self._releases = releases
        self._work = DatabaseWork("the splits of the traffic", budget_s=budget_s)

    async def set(self, wanted: Wanted, who: str, why: str, deadline: Deadline) -> Split:
        """Has a split hold, in this process when it returns.

        Raises:
            InvalidRequest: it is not well formed.
            NotFound: there is no such release.
            NotPossible: a release is not held ready, or none is live.
        """
        for release in _named(wanted) - self._releases.loaded.keys():
            if release in self._releases.standing.spares:
                raise NotPossible(f"release {release} is still being loaded; LoadRelease answers when it is held ready")
        return await self._change(lambda: self._table.set(wanted, who, why), deadline)

    async def end(self, placement: str, who: str, why: str, deadline: Deadline) -> Split:
        """Ends a placement's split, in this process when it returns; returns it as it was.

        Raises:
            NotPossible: there is none.
        """
        return await self._change(lambda: self._table.end(placement, who, why), deadline)

    async def get(self, deadline: Deadline) -> tuple[list[Split], list[NotedChange]]:
        """The splits that hold, and the newest changes."""
        return await self._work.read(lambda: (self._table.splits(), self._table.changes()), deadline)

    def close(self) -> None:
        """Ends the threads after the work under way."""
        self._work.close()

    async def _change(self, change: Callable[[], Split], deadline: Deadline) -> Split:
        try:
            split = await self._work.write(change, deadline)
        except TrafficError as error:
            raise InvalidRequest([Violation(f"split.{error.field}", error.message)]) from None
        except TrafficNotPossible as error:
            raise NotPossible(str(error)) from None
        except ReleaseError as error:
            raise NotFound(f"split: {error}") from None
        await take_in(self._traffic.refresh, "the splits")
        return split


def _named(wanted: Wanted) -> set[int]:
    named = {arm.release for arm in wanted.arms} | ({wanted.canary.release} if wanted.canary else set())
    return named | ({wanted.shadow} if wanted.shadow is not None else set())
