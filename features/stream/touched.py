"""Whose rows the log's next events change: the events' own shoppers, and both sides of a sign-in."""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import Engine, select

from features.database.models import Event, SignIn
from features.schema import SEQUENCE_TYPES, EventType, shopper_key

_SEQUENCE_TYPES: Final = frozenset(int(kind) for kind in SEQUENCE_TYPES)


class Touch(NamedTuple):
    """What happened to one shopper's events at a position of the log."""

    position: int
    shopper: str
    recent: bool
    """The newest events may be others now."""
    purchases: bool
    """The purchases may be."""
    left: bool
    """Events of a session have gone over to the person who signed in; perhaps all of them."""


def touches_after(engine: Engine, position: int, limit: int) -> list[Touch]:
    """What the next `limit` events above `position` touch; in no order, but for the last event's, which is last."""
    events = Event.__table__.c
    wanted = select(events.position, events.shopper, events.event_type).where(events.position > position)
    with engine.connect() as connection:
        rows = connection.execute(wanted.order_by(events.position).limit(limit)).fetchall()
        if not rows:
            return []
        within = (SignIn.position > position, SignIn.position <= rows[-1].position)
        sign_ins = connection.execute(select(SignIn.position, SignIn.session_id, SignIn.shopper).where(*within))
        moved = [
            touch
            for at, session_id, person in sign_ins
            for touch in (
                Touch(at, person, True, True, False),
                Touch(at, shopper_key(None, session_id), True, True, True),
            )
        ]
    return moved + [
        Touch(at, shopper, kind in _SEQUENCE_TYPES, kind == EventType.PURCHASE, False) for at, shopper, kind in rows
    ]


def sign_ins_after(engine: Engine, position: int, through: int | None = None) -> list[tuple[str, int]]:
    """(session id, position) of the sign-ins above `position`, up to `through`."""
    statement = select(SignIn.session_id, SignIn.position).where(SignIn.position > position)
    if through is not None:
        statement = statement.where(SignIn.position <= through)
    with engine.connect() as connection:
        return [(session_id, at) for session_id, at in connection.execute(statement)]
