"""How far the features that are served lag behind the event log, in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, select

from features.database.counters import read_counter
from features.database.models import Event
from features.online.materialize import materialized_counter
from features.stream.stream_positions import stream_position


@dataclass(frozen=True, slots=True)
class Lags:
    """Age of the oldest event that is not in the recent features, and of that in no long-term vector; 0: all are."""

    stream_s: float
    vectors_s: float


def lags(engine: Engine, release: int, now_ms: int) -> Lags:
    """The lags at a moment.

    Args:
        release: whose vectors count; 0 where none is live, which lags behind nothing.

    Raises:
        SQLAlchemyError: the database does not answer.
    """
    stream_s = _age_s(engine, stream_position(engine), now_ms)
    return Lags(stream_s, _age_s(engine, read_counter(engine, materialized_counter(release)), now_ms) if release else 0)


def _age_s(engine: Engine, position: int, now_ms: int) -> float:
    """Since the first event above a position arrived."""
    first = select(Event.arrival_time_ms).where(Event.position > position).order_by(Event.position).limit(1)
    with engine.connect() as connection:
        arrival_ms = connection.scalar(first)
    return 0.0 if arrival_ms is None else max(0.0, (now_ms - arrival_ms) / 1000)
