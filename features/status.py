"""What a shop's databases hold and how far their followers have come: `python -m features status`."""

from __future__ import annotations

from datetime import datetime, timezone

from sqlalchemy import Engine, func, select

from features.database.counters import read_counter
from features.database.engine import open_database
from features.database.models import Event, Item, User
from features.database.server_url import without_secrets
from features.log.event_log import EventLog
from features.online.materialize import materialized_counter, missing_vectors
from features.releases.release_table import ReleaseTable
from features.settings import Settings
from features.stream.stream_positions import stream_position


def status(settings: Settings) -> dict[str, str]:
    """Line by line: events, items, users, the stream's and the live release's lag behind the log."""
    engine = open_database(settings.log_url)
    try:
        last = EventLog(engine).last_position()
        with engine.connect() as connection:
            newest = connection.scalar(select(Event.event_time_ms).where(Event.position == last))
            events = connection.scalar(select(func.count()).select_from(Event)) or 0
            items = connection.scalar(select(func.count()).where(Item.deleted.is_(False))) or 0
            users = connection.scalar(select(func.count()).select_from(User)) or 0
        live = ReleaseTable(engine).live()
        lines = {
            "database": without_secrets(engine.url),
            "events": f"{events:,}" + (f", the last of {_time(newest)}" if newest is not None else ""),
            "items": f"{items:,}",
            "users": f"{users:,}",
            "stream": _lag(last, stream_position(engine)),
            "live release": "none; train and publish one" if live is None else str(live),
        }
        if live is not None:
            lines["long-term vectors"] = _vectors(settings, engine, live, last)
        return lines
    finally:
        engine.dispose()


def _vectors(settings: Settings, engine: Engine, release: int, last: int) -> str:
    missing = missing_vectors(settings, engine, release)
    return missing or _lag(last, read_counter(engine, materialized_counter(release)))


def _time(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _lag(last: int, position: int) -> str:
    return "up to date with the log" if position >= last else f"{last - position:,} positions behind the log"
