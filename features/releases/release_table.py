"""The release table: which releases exist, which one is live, and who changed that when and why.

Training records what it published; the gateway follows `standing()`. Every change leaves a row in `release_changes`.
"""

from __future__ import annotations

import getpass
import time
from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast, get_args

from sqlalchemy import Connection, Engine, Select, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from features.database.models import Answer, Release, ReleaseChange
from features.releases.release import Manifest, ReleaseError

State = Literal["candidate", "canary", "live", "retired", "failed", "removed"]


class NoSuchRelease(ReleaseError):
    """The table has no release of this number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRow:
    """A release as the table knows it; `manifest` is the content of its `release.json`, `kept` as in `Standing`."""

    release: int
    state: State
    manifest: dict[str, Any]
    created_time_ms: int
    kept: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """The release that is to serve, and the one that `rollback` would bring back; None where there is none."""

    live: int | None
    previous: int | None
    kept: frozenset[int] = frozenset()
    """Others that are to be held ready: those that somebody asked for, and canaries."""
    decision: int = field(default=0, compare=False)
    """Number of the newest change that is in this; every change has a greater one."""

    @property
    def spares(self) -> tuple[int, ...]:
        """What is to be held ready beside the live release, the previous one first."""
        previous = () if self.previous is None else (self.previous,)
        return (*previous, *sorted(self.kept - {self.previous, self.live}))


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
            lock_releases(connection)
            give_state(connection, release, state, who, why, instead="retired")

    def load(self, release: int, who: str, why: str) -> None:
        """Asks that a release be held ready beside the live one; one that failed or was retired is a candidate again.

        Raises:
            ReleaseError: there is no such release.
        """
        with self._engine.begin() as connection:
            lock_releases(connection)
            before = state_of(connection, release)
            standing = read_standing(connection)
            if release == standing.live or release in standing.spares:
                return
            keep_as_candidate(connection, release, before, who, f"to be held ready: {why}")

    def fail(self, release: int, serving: int, seen: Standing, who: str, why: str) -> bool:
        """Records that a release was refused; where it was to be live, the one that serves meanwhile is live again.

        Args:
            seen: what the refusal answers to.

        Returns:
            False where something was decided since; nothing is changed then.
        """
        with self._engine.begin() as connection:
            lock_releases(connection)
            if _decision(connection) != seen.decision:
                return False
            give_state(connection, release, "failed", who, why)
            if seen.live == release:
                give_state(connection, serving, "live", who, f"release {release} was refused")
            return True

    def rollback(self, who: str, why: str) -> tuple[int, int]:
        """Makes the release live that was live before, and the one that is live `failed`: it is not returned to.

        Returns:
            The release that is live now, and the one that no longer is.

        Raises:
            ReleaseError: no release is live, or none was before that has not failed since.
        """
        with self._engine.begin() as connection:
            lock_releases(connection)
            standing = read_standing(connection)
            if standing.live is None:
                raise ReleaseError("no release is live; promote one: python -m training release promote N")
            if standing.previous is None:
                raise ReleaseError(
                    f"no release was live before {standing.live} that has not failed since; promote another: "
                    "python -m training release promote N"
                )
            give_state(connection, standing.previous, "live", who, why, instead="failed")
            return standing.previous, standing.live

    def retire(self, release: int, who: str, why: str) -> None:
        """Takes a release out of the running: it is not held ready, and nothing is rolled back to it.

        Raises:
            ReleaseError: there is no such release, or it is live.
        """
        with self._engine.begin() as connection:
            lock_releases(connection)
            if _live(connection) == release:
                raise ReleaseError(f"release {release} is live; promote another first, or roll back")
            _set(connection, release, state_of(connection, release), "retired", who, why)

    def remove_unused(self, since_ms: int, who: str, why: str) -> list[int]:
        """Gives releases that are no longer needed (`housekeeping` says which) the state `removed`, for good.

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
            lock_releases(connection)
            standing = read_standing(connection)
            if standing.live is None:
                return []
            kept = {standing.live, *standing.spares, *connection.scalars(answered)}
            kept |= {release for release, changed_ms in connection.execute(last_change) if changed_ms >= since_ms}
            over = select(Release.release).where(Release.state.in_(["retired", "failed"])).order_by(Release.release)
            removed = [release for release in connection.scalars(over) if release not in kept]
            for release in removed:
                give_state(connection, release, "removed", who, why)
            return removed

    def live(self) -> int | None:
        """The release that is to serve, if any."""
        with self._engine.connect() as connection:
            return _live(connection)

    def standing(self, known: Standing | None = None) -> Standing:
        """What serves, and what it would be rolled back to; `known` itself where nothing was decided since."""
        with self._engine.connect() as connection:
            if known is not None and known.decision == _decision(connection):
                return known
            return read_standing(connection)

    def all(self) -> list[ReleaseRow]:
        """Every release, oldest first."""
        return self._rows(select(*_COLUMNS).order_by(Release.release))

    def page(self, below: int | None, limit: int) -> list[ReleaseRow]:
        """At most so many releases, newest first, with numbers below one."""
        query = select(*_COLUMNS).order_by(Release.release.desc()).limit(limit)
        return self._rows(query if below is None else query.where(Release.release < below))

    def of(self, release: int) -> ReleaseRow:
        """One release.

        Raises:
            NoSuchRelease: there is none of this number.
        """
        for row in self._rows(select(*_COLUMNS).where(Release.release == release)):
            return row
        raise _missing(release)

    def changes(self, release: int) -> list[Change]:
        """What happened to a release, oldest first."""
        columns = [ReleaseChange.__table__.c[field.name] for field in fields(Change)]
        query = select(*columns).where(ReleaseChange.release == release).order_by(ReleaseChange.change)
        with self._engine.connect() as connection:
            return [Change(**row) for row in connection.execute(query).mappings()]

    def _rows(self, query: Select[tuple[int, str, dict[str, Any], int, bool]]) -> list[ReleaseRow]:
        with self._engine.connect() as connection:
            return [
                ReleaseRow(
                    release=row[0], state=cast(State, row[1]), manifest=row[2], created_time_ms=row[3], kept=row[4]
                )
                for row in connection.execute(query)
            ]


_COLUMNS = (Release.release, Release.state, Release.manifest, Release.created_time_ms, Release.kept)


def _live(connection: Connection) -> int | None:
    return connection.scalar(select(Release.release).where(Release.state == "live"))


def read_standing(connection: Connection) -> Standing:
    newer = aliased(ReleaseChange)
    left_service = (
        select(ReleaseChange.release)
        .join(Release, Release.release == ReleaseChange.release)
        .where(
            ReleaseChange.from_state == "live",
            Release.state == "retired",
            ~exists().where(newer.release == ReleaseChange.release, newer.change > ReleaseChange.change),
        )
        .order_by(ReleaseChange.change.desc())
        .limit(1)
    )
    decision = _decision(connection)  # first: what is decided meanwhile is in the next standing
    live = _live(connection)
    kept = select(Release.release).where(or_(Release.kept, Release.state == "canary"))
    return Standing(live, connection.scalar(left_service), frozenset(connection.scalars(kept)) - {live}, decision)


def _decision(connection: Connection) -> int:
    return connection.scalar(select(func.max(ReleaseChange.change))) or 0


def state_of(connection: Connection, release: int) -> str:
    state = connection.scalar(select(Release.state).where(Release.release == release))
    if state is None:
        raise _missing(release)
    if state == "removed":
        raise ReleaseError(f"release {release} was removed, its files are gone; publish its model again")
    return state


def give_state(
    connection: Connection, release: int, state: State, who: str, why: str, *, instead: State = "retired"
) -> None:
    """Gives a release a new state; where it goes live, the one that was becomes `instead`."""
    before = state_of(connection, release)
    if state == "live":
        others = select(Release.release).where(Release.state == "live", Release.release != release)
        for other in list(connection.scalars(others)):
            _set(connection, other, "live", instead, who, f"release {release} goes live: {why}")
    if before != state:
        _set(connection, release, before, state, who, why)


def keep_as_candidate(connection: Connection, release: int, before: str, who: str, why: str) -> None:
    """Makes a release a candidate that is held ready."""
    connection.execute(update(Release).where(Release.release == release).values(state="candidate", kept=True))
    _note(connection, release, before, "candidate", _now_ms(), who, why)


def _set(connection: Connection, release: int, before: str, state: State, who: str, why: str) -> None:
    connection.execute(update(Release).where(Release.release == release).values(state=state, kept=False))
    _note(connection, release, before, state, _now_ms(), who, why)


def _missing(release: int) -> NoSuchRelease:
    return NoSuchRelease(f"there is no release {release}; see `python -m training release list`")


def lock_releases(connection: Connection) -> None:
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
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user whom the system does not list
        return "unknown"
