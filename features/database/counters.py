"""Named numbers that survive a restart (table `counters`): how far a follower is, how often a table has changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from sqlalchemy import Connection, Engine, func, select

from features.database.engine import insert_into
from features.database.models import Counter

T = TypeVar("T")


def read_counter(engine: Engine, name: str) -> int:
    """The counter's value, 0 before it was set."""
    return read_counters(engine, [name])[name]


def read_counters(engine: Engine, names: Collection[str]) -> dict[str, int]:
    """`read_counter` for several at one moment."""
    with engine.connect() as connection:
        found = connection.execute(select(Counter.name, Counter.value).where(Counter.name.in_(names)))
        return dict.fromkeys(names, 0) | {name: value for name, value in found}


def changed_since(engine: Engine, name: str, revision: int, read: Callable[[], T]) -> tuple[T, int] | None:
    """What `read` gives of a table whose changes the counter counts, and the count; None where that is `revision`."""
    now = read_counter(engine, name)  # first: what changes in between is read again
    return None if now == revision else (read(), now)


def advance_counter(engine: Engine, name: str, value: int) -> None:
    """Sets the counter to `value` unless it is higher already."""
    advance_counters(engine, {name: value})


def advance_counters(engine: Engine, values: Mapping[str, int]) -> None:
    """`advance_counter` for several in one transaction, in one order everywhere: no two writers wait for each other."""
    if not values:
        return
    statement = insert_into(engine, Counter).values([{"name": name, "value": values[name]} for name in sorted(values)])
    greatest = func.greatest if engine.dialect.name == "postgresql" else func.max
    statement = statement.on_conflict_do_update(
        index_elements=["name"], set_={"value": greatest(Counter.value, statement.excluded.value)}
    )
    with engine.begin() as connection:
        connection.execute(statement)


def add_to_counter(connection: Connection, name: str, count: int) -> int:
    """The counter after `count` was added; who else adds to it waits until this transaction ends."""
    statement = insert_into(connection, Counter).values(name=name, value=count)
    statement = statement.on_conflict_do_update(index_elements=["name"], set_={"value": Counter.value + count})
    return int(connection.execute(statement.returning(Counter.value)).scalar_one())
