"""Named numbers that survive a restart (table `counters`): how far a follower of the log has come."""

from __future__ import annotations

from sqlalchemy import Engine, func, select
from sqlalchemy.dialects import postgresql, sqlite

from features.database.models import Counter


def read_counter(engine: Engine, name: str) -> int:
    """The counter's value, 0 before it was set."""
    with engine.connect() as connection:
        return connection.scalar(select(Counter.value).where(Counter.name == name)) or 0


def advance_counter(engine: Engine, name: str, value: int) -> None:
    """Sets the counter to `value` unless it is higher already."""
    dialect = postgresql if engine.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(Counter).values(name=name, value=value)
    greatest = func.greatest if engine.dialect.name == "postgresql" else func.max
    statement = statement.on_conflict_do_update(
        index_elements=["name"], set_={"value": greatest(Counter.value, statement.excluded.value)}
    )
    with engine.begin() as connection:
        connection.execute(statement)
