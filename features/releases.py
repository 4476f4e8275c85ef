"""The release table: which releases exist, which one is live, and who changed that when and why.

Training records what it published; the gateway follows `standing()`. Every change leaves a row in `release_changes`.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Engine, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from features.database.models import Answer, Release, ReleaseChange
from features.release import Manifest, ReleaseError

State = Literal["candidate", "live", "retired", "failed", "removed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRow:
    """A release as the table knows it; `manifest` is the content of its `release.json`."""

    release: int
    state: State
    manifest: dict[str, Any]
    created_time_ms: int


@dataclass(frozen=True, slots=True)
class Standing:
    """The release that is to serve, and the one that `rollback` would bring back; None where there is none."""

    live: int | None
    previous: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of a release's state; `from_state` is None where the release was recorded."""

    release: int
    from_state: str | None
    to_state: str
    changed_time_ms: int
    who: str
    why: str


class ReleaseTable:
    """Reads and changes the table; each method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def next_number(self) -> int:
        """One above the highest number recorded so far, 1 at first."""
        with self._engine.connect() as connection:
            return (connection.scalar(select(func.max(Release.release))) or 0) + 1

    def record(self, release: int, manifest: Manifest, who: str, why: str) -> None:
        """Records a new release as candidate.

        Raises:
            ReleaseError: the number is taken.
        """
        now_ms = _now_ms()
        try:
            with self._engine.begin() as connection:
                connection.execute(
                    insert(Release).values(
                        release=release, state="candidate", manifest=manifest.to_json(), created_time_ms=now_ms
                    )
                )
                _note(connection, release, None, "candidate", now_ms, who, why)
        except IntegrityError:
            raise ReleaseError(f"release {release} is recorded already; publish under a new number") from None

    def change_state(self, release: int, state: State, who: str, why: str) -> None:
        """Gives a release a new state; one that goes live retires the one that was.

        Raises:
            ReleaseError: there is no such release, or no such state.
        """
        if state not in get_args(State):
            raise ReleaseError(f"state {state!r} is none of {', '.join(get_args(State))}")
        with self._engine.begin() as connection:
            _lock(connection)
            _change_state(connection, release, state, who, why, instead="retired")

    def rollback(self, who: str, why: str) -> tuple[int, int]:
        """Makes the release live that was live before, and the one that is live `failed`: it is not returned to.

        Returns:
            The release that is live now, and the one that no longer is.

        Raises:
            ReleaseError: no release is live, or none was before that has not failed since.
        """
        with self._engine.begin() as connection:
            _lock(connection)
            standing = _standing(connection)
            if standing.live is None:
                raise ReleaseError("no release is live; promote one: python -m training release promote N")
            if standing.previous is None:
                raise ReleaseError(
                    f"no release was live before {standing.live} that has not failed since; promote another: "
                    "python -m training release promote N"
                )
            _change_state(connection, standing.previous, "live", who, why, instead="failed")
            return standing.previous, standing.live

    def retire(self, release: int, who: str, why: str) -> None:
        """Takes a release out of the running.

        Raises:
            ReleaseError: there is no such release, or it is live.
        """
        with self._engine.begin() as connection:
            _lock(connection)
            if _live(connection) == release:
                raise ReleaseError(f"release {release} is live; promote another first, or roll back")
            _change_state(connection, release, "retired", who, why)

    def remove_unused(self, since_ms: int, who: str, why: str) -> list[int]:
        """Gives releases that are no longer needed the state `removed`, for good; `features.housekeeping` says which.

        Args:
            since_ms: a release that changed its state or answered anybody since then stays.

        Returns:
            Their numbers; none where no release is live.
        """
        last_change = select(ReleaseChange.release, func.max(ReleaseChange.changed_time_ms)).group_by(
            ReleaseChange.release
        )
        answered = select(Answer.release).where(Answer.answered_time_ms >= since_ms).distinct()
        with self._engine.begin() as connection:
            _lock(connection)
            standing = _standing(connection)
            if standing.live is None:
                return []
            kept = {standing.live, standing.previous, *connection.scalars(answered)}
            kept |= {release for release, changed_ms in connection.execute(last_change) if changed_ms >= since_ms}
            over = select(Release.release).where(Release.state.in_(["retired", "failed"])).order_by(Release.release)
            removed = [release for release in connection.scalars(over) if release not in kept]
            for release in removed:
                _change_state(connection, release, "removed", who, why)
            return removed

    def live(self) -> int | None:
        """The release that is to serve, if any."""
        with self._engine.connect() as connection:
            return _live(connection)

    def standing(self) -> Standing:
        """What serves, and what it would be rolled back to."""
        with self._engine.connect() as connection:
            return _standing(connection)

    def all(self) -> list[ReleaseRow]:
        """Every release, oldest first."""
        columns = (Release.release, Release.state, Release.manifest, Release.created_time_ms)
        with self._engine.connect() as connection:
            return [
                ReleaseRow(release=row[0], state=row[1], manifest=row[2], created_time_ms=row[3])
                for row in connection.execute(select(*columns).order_by(Release.release))
            ]

    def of(self, release: int) -> ReleaseRow:
        """One release.

        Raises:
            ReleaseError: there is none of this number.
        """
        for row in self.all():
            if row.release == release:
                return row
        raise _missing(release)

    def changes(self, release: int) -> list[Change]:
        """What happened to a release, oldest first."""
        columns = (
            ReleaseChange.release,
            ReleaseChange.from_state,
            ReleaseChange.to_state,
            ReleaseChange.changed_time_ms,
            ReleaseChange.who,
            ReleaseChange.why,
        )
        query = select(*columns).where(ReleaseChange.release == release).order_by(ReleaseChange.change)
        with self._engine.connect() as connection:
            return [
                Change(
                    release=row[0], from_state=row[1], to_state=row[2], changed_time_ms=row[3], who=row[4], why=row[5]
                )
                for row in connection.execute(query)
            ]


def _live(connection: Connection) -> int | None:
    return connection.scalar(select(Release.release).where(Release.state == "live"))


def _standing(connection: Connection) -> Standing:
    left_service = (
        select(ReleaseChange.release)
        .join(Release, Release.release == ReleaseChange.release)
        .where(ReleaseChange.from_state == "live", ReleaseChange.to_state == "retired", Release.state == "retired")
        .order_by(ReleaseChange.change.desc())
        .limit(1)
    )
    return Standing(_live(connection), connection.scalar(left_service))


def _change_state(
    connection: Connection, release: int, state: State, who: str, why: str, *, instead: State = "retired"
) -> None:
    """Gives a release a new state; where it goes live, the one that was becomes `instead`."""
    now_ms = _now_ms()
    before = connection.scalar(select(Release.state).where(Release.release == release))
    if before is None:
        raise _missing(release)
    if before == "removed":
        raise ReleaseError(f"release {release} was removed, its files are gone; publish its model again")
    if state == "live":
        others = select(Release.release).where(Release.state == "live", Release.release != release)
        for other in list(connection.scalars(others)):
            connection.execute(update(Release).where(Release.release == other).values(state=instead))
            _note(connection, other, "live", instead, now_ms, who, f"release {release} goes live: {why}")
    if before != state:
        connection.execute(update(Release).where(Release.release == release).values(state=state))
        _note(connection, release, before, state, now_ms, who, why)


def _missing(release: int) -> ReleaseError:
    return ReleaseError(f"there is no release {release}; see `python -m training release list`")


def _lock(connection: Connection) -> None:
    """Makes a second writer wait, so that two promotions at once cannot leave two releases live."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("LOCK TABLE releases IN SHARE ROW EXCLUSIVE MODE")
    else:  # any write takes SQLite's lock, and it must come before the first read
        connection.execute(update(Release).where(Release.release < 0).values(state=Release.state))


def _note(
    connection: Connection, release: int, before: str | None, after: str, now_ms: int, who: str, why: str
) -> None:
    connection.execute(
        insert(ReleaseChange).values(
            release=release, from_state=before, to_state=after, changed_time_ms=now_ms, who=who, why=why
        )
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def who() -> str:
    """Whoever runs this process, for the table."""
    return os.environ.get("USER") or "unknown"
