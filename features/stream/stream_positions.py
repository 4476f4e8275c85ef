"""How far the online rows reflect the log, durably: one position of all shares, and ahead of it some share's own.

A worker that serves every shopper moves the one position; workers that divide the shares move each share's own. A
share's position is the greater of the two, so that neither way of working has to know of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Engine, select

from features.database.counters import advance_counters
from features.database.models import Counter
from features.stream.shares import EVERY_SHARE

STREAM_COUNTER: Final = "stream:position"
"""Position through which the rows of all shoppers reflect the log."""

_OF_SHARE = {share: f"{STREAM_COUNTER}:{share}" for share in sorted(EVERY_SHARE)}


def share_positions(engine: Engine) -> dict[int, int]:
    """The position of each share."""
    names = [STREAM_COUNTER, *_OF_SHARE.values()]
    with engine.connect() as connection:
        rows = connection.execute(select(Counter.name, Counter.value).where(Counter.name.in_(names)))
        values = {name: value for name, value in rows}
    of_all = values.get(STREAM_COUNTER, 0)
    return {share: max(of_all, values.get(name, 0)) for share, name in _OF_SHARE.items()}


def stream_position(engine: Engine) -> int:
    """The position through which the online rows of every shopper reflect the log."""
    return min(share_positions(engine).values())


def save_positions(engine: Engine, positions: Mapping[int, int]) -> None:
    """Moves the shares' positions forward; those that are further stay."""
    if positions.keys() == EVERY_SHARE:
        advance_counters(engine, {STREAM_COUNTER: min(positions.values())})
    else:
        advance_counters(engine, {_OF_SHARE[share]: position for share, position in sorted(positions.items())})
