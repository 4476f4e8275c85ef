"""A person in the shop's database: events, sign-ins, answers, attributes.

The first transaction puts up the tombstones and deletes the events, so that none is ever added behind it. The rows of
`sign_ins` are the last to go: an erasure that was cut short finds the person's sessions by them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine, delete, select, update
from sqlalchemy.orm import DeclarativeBase

from features.database.counters import add_to_counter, advance_counter, read_counter
from features.database.engine import insert_into
from features.database.models import Answer, Event, SignIn, User
from features.erasure.tombstones import Tombstones

TABLES: Final[tuple[type[DeclarativeBase], ...]] = (Event, SignIn, Answer, User)
"""Those that know of persons."""

T = TypeVar("T")
_PART = 500
_DELETED = "erasure:deleted:"
_CLEANED = "erasure:cleaned:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who is erased: a user with the sessions that they signed in, or a session alone."""

    user_id: str
    """Empty where a session alone is erased."""
    sessions: tuple[str, ...]

    @property
    def keys(self) -> list[str]:
        """The shopper's keys."""
        return [*([f"u:{self.user_id}"] if self.user_id else []), *(f"s:{session}" for session in self.sessions)]

    @property
    def ids(self) -> list[str]:
        """What must not be found anywhere any more."""
        return [*([self.user_id] if self.user_id else []), *self.sessions]


def uncleaned(engine: Engine) -> dict[str, int]:
    """Tables with rows deleted whose bytes are still to be got rid of, each with the number for `note_cleaned`."""
    names = [table.__tablename__ for table in TABLES]
    deletions = {name: read_counter(engine, f"{_DELETED}{name}") for name in names}
    return {name: number for name, number in deletions.items() if number > read_counter(engine, f"{_CLEANED}{name}")}


def note_cleaned(engine: Engine, tables: dict[str, int]) -> None:
    """The bytes of what `uncleaned` named are gone."""
    for name, number in tables.items():
        advance_counter(engine, f"{_CLEANED}{name}", number)


def bury(engine: Engine, tombstones: Tombstones, user_id: str, session_id: str) -> Person:
    """Puts up the tombstones, remembers the sessions among the sign-ins and deletes the events, in one transaction.

    Raises:
        ErasureKeyError: persons were erased under another key.
    """
    with engine.begin() as connection:
        tombstones.bury(connection, [f"u:{user_id}" if user_id else f"s:{session_id}"])
        person = Person(
            user_id=user_id, sessions=tuple(_sessions_of(connection, f"u:{user_id}")) if user_id else (session_id,)
        )
        if user_id and person.sessions:
            tombstones.bury(connection, [f"s:{session}" for session in person.sessions])
            _remember(connection, person)
        deleted = 0
        for keys in _parts(person.keys):
            deleted += connection.execute(delete(Event).where(Event.shopper.in_(keys))).rowcount
        _count(connection, Event, deleted)
    return person


def delete_answers(engine: Engine, person: Person) -> None:
    """Deletes what was answered to the person, also before they signed in."""
    deleted = 0
    with engine.begin() as connection:
        for keys in _parts(person.keys):
            deleted += connection.execute(delete(Answer).where(Answer.shopper.in_(keys))).rowcount
        for sessions in _parts(person.sessions):
            deleted += connection.execute(delete(Answer).where(Answer.session_id.in_(sessions))).rowcount
        _count(connection, Answer, deleted)


def delete_attributes(engine: Engine, person: Person) -> None:
    """Deletes what was said of the person."""
    with engine.begin() as connection:
        _count(connection, User, connection.execute(delete(User).where(User.user_id == person.user_id)).rowcount)


def unlink_sessions(engine: Engine, person: Person) -> None:
    """Takes the person's sessions off events that others left in them: a device that two people share.

    The log has no index by session: it is read through before anything is locked.
    """
    for sessions in _parts(person.sessions):
        with engine.connect() as connection:
            positions = list(connection.scalars(select(Event.position).where(Event.session_id.in_(sessions))))
        with engine.begin() as connection:
            for part in _parts(positions):
                connection.execute(update(Event).where(Event.position.in_(part)).values(session_id=None))
            _count(connection, Event, len(positions))


def forget_sessions(engine: Engine, person: Person) -> None:
    """Deletes the sign-ins; from here on nothing of the person is known."""
    deleted = 0
    with engine.begin() as connection:
        for sessions in _parts(person.sessions):
            deleted += connection.execute(delete(SignIn).where(SignIn.session_id.in_(sessions))).rowcount
        _count(connection, SignIn, deleted)


def _sessions_of(connection: Connection, key: str) -> list[str]:
    """Sessions that the person signed in, and those of their events that nobody else signed in before them."""
    signed_in = set(connection.scalars(select(SignIn.session_id).where(SignIn.shopper == key)))
    own = select(Event.session_id).where(Event.shopper == key, Event.session_id.is_not(None)).distinct()
    found = {session for session in connection.scalars(own) if session is not None} - signed_in
    for part in _parts(sorted(found)):
        found -= set(connection.scalars(select(SignIn.session_id).where(SignIn.session_id.in_(part))))
    return sorted(signed_in | found)


def _remember(connection: Connection, person: Person) -> None:
    rows = [
        {"session_id": session, "shopper": f"u:{person.user_id}", "through_ms": 0, "position": 0}
        for session in person.sessions
    ]
    connection.execute(insert_into(connection, SignIn).on_conflict_do_nothing(), rows)


def _count(connection: Connection, table: type[DeclarativeBase], deleted: int) -> None:
    """Notes in the same transaction that rows were deleted whose bytes are still to be got rid of."""
    if deleted:
        add_to_counter(connection, f"{_DELETED}{table.__tablename__}", 1)


def _parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), _PART):
        yield values[start : start + _PART]
