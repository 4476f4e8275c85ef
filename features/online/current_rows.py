"""The current rows online: written whole by `features build`, kept current by `features stream`.

Both read a shopper's rows from the log and write them under the lock `online-rows`, so that neither can put an older
row over a newer one: the stream workers share it, each for shoppers of its own, and the build holds it alone. Counters
say how far the rows reflect the log and the users.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import polars as pl
import pyarrow.parquet as pq
from rich.progress import Progress
from sqlalchemy import ColumnElement, Engine, select

from features import schema, store
from features.database.counters import advance_counter
from features.database.models import Event, User
from features.erasure.survivors import Survivors
from features.locks import locked
from features.online.rows import profile_rows
from features.online.shopper_rows import RowsToWrite, ShopperRows
from features.schema import shopper_key
from features.settings import Settings
from features.shop.users import USER_COLUMNS
from features.stream.stream_positions import STREAM_COUNTER, stream_position
from features.stream.touched import sign_ins_after

USERS_COUNTER: Final = "stream:users"
"""`updated_time_ms` through which the online profiles reflect the users."""

_WRITE_ROWS: Final = 2_000


def write_online(settings: Settings, engine: Engine, through: int, survivors: Survivors, progress: Progress) -> None:
    """Writes the rows of `settings.offline` online and moves the stream's counters up to what they reflect.

    Args:
        through: the position of the log that the files hold. A shopper with events above it is left to the stream
            worker, which may have written a newer row.
        survivors: as of before the log was read; whoever was erased since is left out.
    """
    with store.opened(settings) as feast:
        _write_profiles(settings, engine, feast, progress)
        _write_sessions_left(settings, engine, feast, through)
        store.write_item_statistics(
            feast, pl.read_parquet(schema.offline_file(settings.offline, schema.ITEM_STATISTICS_VIEW))
        )
        views: dict[str, Callable[[store.FeatureStore, pl.DataFrame], None]] = {
            schema.RECENT_VIEW: store.write_recent,
            schema.PURCHASES_VIEW: store.write_purchases,
        }
        for view, write in views.items():
            file = pq.ParquetFile(schema.offline_file(settings.offline, view))
            task = progress.add_task(f"writing {view} online", total=file.metadata.num_rows)
            for batch in file.iter_batches(batch_size=_WRITE_ROWS):
                rows = pl.DataFrame(pl.from_arrow(batch))
                with locked(settings, "online-rows", engine=engine):
                    rows = survivors.among(rows)
                    write(feast, rows.filter(~pl.col("shopper").is_in(_shoppers_after(engine, through))))
                progress.advance(task, rows.height)
    with locked(settings, "online-rows", engine=engine):
        advance_counter(engine, STREAM_COUNTER, through)


def read_users(engine: Engine, condition: ColumnElement[bool], order: list[Any], limit: int) -> pl.DataFrame:
    """The first `limit` users that meet the condition; columns `USER_COLUMNS`."""
    columns = [User.__table__.c[name] for name in USER_COLUMNS]
    with engine.connect() as connection:
        found = connection.execute(select(*columns).where(condition).order_by(*order).limit(limit))
        rows = [tuple(row) for row in found]
    return pl.DataFrame(rows, schema=USER_COLUMNS, orient="row")


def _write_profiles(settings: Settings, engine: Engine, feast: store.FeatureStore, progress: Progress) -> None:
    built = pl.scan_parquet(settings.offline / "users.parquet").select(
        pl.len().alias("users"), pl.col("updated_time_ms").max()
    )
    total, newest_ms = built.collect().row(0)
    task = progress.add_task(f"writing {schema.PROFILE_VIEW} online", total=total)
    last = ""
    while True:
        # Read again rather than taken from the file: a profile may have changed since.
        with locked(settings, "online-rows", engine=engine):
            users = read_users(engine, User.user_id > last, [User.user_id], _WRITE_ROWS)
            store.write_profiles(feast, profile_rows(users))
        if users.is_empty():
            break
        last = users["user_id"][-1]
        progress.advance(task, users.height)
    if newest_ms is not None:
        advance_counter(engine, USERS_COUNTER, min(newest_ms, int(time.time() * 1000)))


def _write_sessions_left(settings: Settings, engine: Engine, feast: store.FeatureStore, through: int) -> None:
    """What the stream would do about the sign-ins that it will now skip: a session's old rows may have to go.

    That is a session that began before it signed in, which few of a large import do.
    """
    signed_in = sign_ins_after(engine, stream_position(engine), through)
    began = pl.scan_parquet(settings.offline / "events.parquet").group_by("session_id").agg(pl.col("position").min())
    positions = pl.DataFrame(signed_in, schema={"session_id": pl.String, "signed_in": pl.Int64}, orient="row").lazy()
    before = positions.join(began, on="session_id").filter(pl.col("position") < pl.col("signed_in")).collect()
    sessions = sorted(shopper_key(None, session_id) for session_id in before["session_id"])
    rows = ShopperRows(engine, feast)
    for start in range(0, len(sessions), _WRITE_ROWS):
        part = sessions[start : start + _WRITE_ROWS]
        with locked(settings, "online-rows", engine=engine):
            rows.write(RowsToWrite(recent=part, purchases=part, left=part))


def _shoppers_after(engine: Engine, position: int) -> list[str]:
    with engine.connect() as connection:
        acted = list(connection.scalars(select(Event.shopper).where(Event.position > position).distinct()))
    return acted + [shopper_key(None, session_id) for session_id, _ in sign_ins_after(engine, position)]
