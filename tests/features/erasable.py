"""A shop with a person in every place that knows of persons, and the search for what is left of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import redis
from sqlalchemy import Engine, insert, text

from features import schema, store
from features.database.models import Answer
from features.log.event_log import EventLog, NewEvent
from features.offline.build import build
from features.online.rows import INTEREST_ROWS
from features.settings import Settings
from features.shop.users import UserProfile, Users
from tests.conditions import eventually
from tests.features.shops import START_MS, fill, now_ms, random_events, read_rows, write_generated
from tests.processes import required_binary, running

PERSON = "person-5d1f0c77aa"
SESSION = "visit-9b2e64f1c3"
"""Signed in by the person."""
EARLIER = "visit-41c07de8b5"
"""Of an event of the person's, without a sign-in."""
OTHER = "0"
"""Somebody who used the person's device after them."""
IDS = (PERSON, SESSION, EARLIER)
THEIR_KEYS = [f"u:{PERSON}", f"s:{SESSION}", f"s:{EARLIER}"]
OTHER_KEYS = [f"{'u' if number % 2 == 0 else 's'}:{number}" for number in range(7)]
RELEASE = 3
VIEWS = [schema.RECENT_VIEW, schema.PURCHASES_VIEW, schema.PROFILE_VIEW, schema.interest_view(RELEASE)]


def event_of(event_id: str, user_id: str | None, session_id: str | None, kind: int = 1, hour: int = 0) -> NewEvent:
    """One event."""
    return NewEvent(
        event_id=event_id,
        event_type=kind,
        event_time_ms=START_MS + hour * 3_600_000,
        user_id=user_id,
        session_id=session_id,
        item_id="item-1",
    )


def their_events() -> list[NewEvent]:
    """What the person did, signed in and before."""
    events = [event_of(f"theirs-{n}", PERSON, None, kind=4 if n % 5 == 0 else 1, hour=n) for n in range(40)]
    events += [event_of(f"anonymous-{n}", None, SESSION, hour=n) for n in range(5)]
    events += [event_of("signs in", PERSON, SESSION), event_of("with the visit", PERSON, EARLIER)]
    return [*events, event_of("shared", OTHER, SESSION), event_of("another signs in", OTHER, "another visit")]


def write_shop(settings: Settings) -> Engine:
    """Others and the person among them: log, answers, users, online rows of every view, every kind of file."""
    others = random_events(300, seed=5)
    engine = fill(settings, others[:150])
    EventLog(engine).append([*their_events(), *others[150:]], now_ms())
    Users(engine).upsert([UserProfile(user_id=name, age=33, country="GB") for name in (PERSON, OTHER, "2")])
    with engine.begin() as connection:
        connection.execute(
            insert(Answer),
            [
                answer("a", f"u:{PERSON}", None),
                answer("b", f"s:{SESSION}", SESSION),
                answer("c", f"u:{OTHER}", "0"),
            ],
        )
    write_generated(settings, RELEASE, 2)
    build(settings)
    vectors = interest_frame([*THEIR_KEYS, *OTHER_KEYS])
    part = settings.offline / schema.interest_view(RELEASE) / "part-1.parquet"
    part.parent.mkdir(parents=True, exist_ok=True)
    vectors.write_parquet(part)
    with store.opened(settings) as feast:
        store.write_interest(feast, RELEASE, vectors)
    rejected = settings.home / "imports" / "one" / "rejected.parquet"
    rejected.parent.mkdir(parents=True)
    pl.DataFrame(
        {"row": [1, 2, 3], "Customer": [PERSON, OTHER, None], "line_text": [None, None, f'{{"session": "{SESSION}"}}']}
    ).write_parquet(rejected)
    predictions = settings.home / "training" / "predictions.parquet"
    predictions.parent.mkdir()
    pl.DataFrame({"shopper": [f"u:{PERSON}", "u:0"], "bought": [["item-1"], []]}).write_parquet(predictions)
    for folder in ("offline/.building", "materialize/3", "imports/two/work-x"):  # of jobs that were killed
        (settings.home / folder).mkdir(parents=True)
        (settings.home / folder / "left").write_text(PERSON)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    return engine


def answer(token: str, shopper: str, session_id: str | None) -> dict[str, Any]:
    """A row of `answers` whose request names the shopper."""
    return {
        "attribution_token": token,
        "answered_time_ms": START_MS,
        "shopper": shopper,
        "session_id": session_id,
        "placement": "home",
        "release": RELEASE,
        "tier": 1,
        "item_ids": ["item-1"],
        "request": {"shopper": shopper, "padding": "x" * 3_000},
        "features": b"features",
    }


def interest_frame(shoppers: list[str]) -> pl.DataFrame:
    """A vector for each."""
    moment = pl.from_epoch(pl.lit(START_MS), time_unit="ms").dt.cast_time_unit("us").dt.replace_time_zone("UTC")
    return (
        pl.DataFrame({"shopper": shoppers})
        .with_columns(
            vector=pl.lit([0.5, 1.0]), encoded_through_ms=START_MS, encoded_position=1, event_timestamp=moment
        )
        .select(pl.col(name).cast(kind) for name, kind in INTEREST_ROWS.items())
    )


def online_rows(settings: Settings, shoppers: list[str]) -> dict[str, dict[str, Any]]:
    """The rows that there are, by view and shopper."""
    with store.opened(settings) as feast:
        rows = {view: read_rows(feast, view, shoppers) for view in VIEWS}
    return {view: {key: row for key, row in found.items() if row is not None} for view, found in rows.items()}


def table_rows(engine: Engine, table: str, order: str) -> list[tuple[Any, ...]]:
    """A whole table."""
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY {order}"))]


def files_that_name(folder: Path, *ids: str) -> set[str]:
    """Files below a folder among whose bytes is one of the ids; PostgreSQL's archived changes are left out.

    A process of its own reads them: closing a SQLite file here would drop the locks of the connections in this one.
    """
    patterns = [part for name in ids for part in ("-e", name)]
    command = ["grep", "-rlaF", "--exclude-dir=pg_wal", *patterns, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    return {str(Path(line).relative_to(folder)) for line in done.stdout.splitlines()}


def postgresql_folder(url: str) -> Path:
    """Where the server keeps its data, with everything in memory written to it."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        row = connection.execute("SHOW data_directory").fetchone()
    assert row is not None
    return Path(row[0])


@contextmanager
def durable_redis(folder: Path, port: int) -> Iterator[None]:
    """A Redis that keeps an append-only file and snapshots in `folder`."""
    flags = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--appendonly", "yes", "--save", "60 1"]
    with running([required_binary("redis-server", "redis-server"), *flags], folder.parent / "redis.log"):
        with redis.Redis(port=port) as client:
            eventually(client.ping, what="Redis' first answer")
        yield
