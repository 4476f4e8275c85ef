"""Builds the features from the log: `python -m features build`.

Writes to `settings.offline`, each file replaced as a whole:

- events.parquet: the log, sorted by shopper, event_time_ms, position, columns `OFFLINE_EVENTS`; every feature of any
  moment can be cut from it (`features.inputs.transform`, `features.offline.history`, `features.offline.point_in_time`);
- items.parquet (`Catalogue.frame`), users.parquet (`Users.frame` and the shopper's key);
- shopper_recent, shopper_purchases, shopper_profile, item_statistics: the rows of Feast's offline sources, each
  stamped with its newest event, so that a point-in-time join never sees one before it was true.

Then fills the table `item_statistics` and writes the current rows online. Memory is bounded: the log is sorted on
disk and worked through in chunks of whole shoppers.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import duckdb
import polars as pl
import pyarrow.parquet as pq
from rich.progress import Progress
from sqlalchemy import Engine

from features import schema, store
from features.database.engine import open_database
from features.erasure.survivors import Survivors
from features.locks import locked
from features.log.event_log import EVENT_COLUMNS, EventLog
from features.offline import item_statistics, point_in_time
from features.offline.point_in_time import with_known_time
from features.online import current_rows
from features.online.rows import newest_events, profile_rows, purchase_rows, purchases, recent_rows
from features.settings import Settings
from features.shop.catalogue import Catalogue
from features.shop.users import Users
from features.terminal import stderr

OFFLINE_EVENTS: Final[tuple[str, ...]] = (
    "shopper",
    "event_id",
    "item_id",
    "event_type",
    "event_time_ms",
    "arrival_time_ms",
    "position",
    "order_id",
    "quantity",
    "price",
    "session_id",
    "known_time_ms",
)
CHUNK_ROWS: Final = 200_000
SORT_MEMORY: Final = "1GB"


def build(settings: Settings) -> None:
    """Builds everything; see the module. Run again, it replaces what it built."""
    engine = open_database(settings.log_url)
    try:
        with locked(settings, "build", engine=engine):
            _build(settings, engine)
    finally:
        engine.dispose()


def _build(settings: Settings, engine: Engine) -> None:
    store.apply(settings)
    survivors = Survivors(settings, engine)
    folder = settings.offline / ".building"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with Progress(console=stderr, transient=True) as progress:
        through = write_events(EventLog(engine), folder, progress)
        items, users = Catalogue(engine).frame(), _users(engine)
        items.write_parquet(folder / "items.parquet")
        users.write_parquet(folder / "users.parquet")
        profile_rows(users).write_parquet(folder / f"{schema.PROFILE_VIEW}.parquet")
        write_shopper_rows(folder, progress)
        statistics = item_statistics.item_statistics(folder / "events.parquet", items, users)
        newest_ms = pl.scan_parquet(folder / "events.parquet").select(pl.col("event_time_ms").max()).collect().item()
        item_statistics.online_rows(statistics, newest_ms or 0).write_parquet(
            folder / f"{schema.ITEM_STATISTICS_VIEW}.parquet"
        )
        with locked(settings, "erasure", engine=engine):
            survivors.rewrite(folder)
            for path in folder.iterdir():
                os.replace(path, settings.offline / path.name)
        folder.rmdir()
        item_statistics.write_table(engine, statistics)
        current_rows.write_online(settings, engine, through, survivors, progress)
    stderr.print(
        f"Built features from {through:,} positions of the log: {items.height:,} items, {users.height:,} users, "
        f"in {settings.offline}"
    )


def write_events(log: EventLog, folder: Path, progress: Progress) -> int:
    """Writes `folder`/events.parquet and returns the position through which it holds the log."""
    read_ms = int(time.time() * 1000)
    through, joins = log.last_position(), log.sign_ins()
    task = progress.add_task("reading the log", total=through)
    unsorted = folder / "unsorted.parquet"
    empty = _no_events().to_arrow()
    with pq.ParquetWriter(unsorted, empty.schema, compression="lz4") as writer:
        for frame in log.scan():
            kept = with_known_time(frame.filter(pl.col("position") <= through), joins).select(OFFLINE_EVENTS)
            writer.write_table(kept.to_arrow().cast(empty.schema))
            progress.update(task, completed=frame["position"][-1])
            if frame["position"][-1] >= through:
                break
    _sort(unsorted, folder / "events.parquet", read_ms)
    unsorted.unlink()
    return through


def whole_shoppers(path: Path, rows: int = CHUNK_ROWS) -> Iterator[pl.DataFrame]:
    """The events of a sorted file in chunks of about `rows`, no shopper cut in two."""
    held: list[pl.DataFrame] = []
    for batch in pq.ParquetFile(path).iter_batches(batch_size=rows):
        frame = pl.DataFrame(pl.from_arrow(batch))
        last = frame["shopper"][-1]
        if frame["shopper"][0] == last:
            same = not held or held[-1]["shopper"][-1] == last
            if not same:
                yield pl.concat(held)
                held = []
            held.append(frame)
            continue
        yield pl.concat([*held, frame.filter(pl.col("shopper") != last)])
        held = [frame.filter(pl.col("shopper") == last)]
    if held:
        yield pl.concat(held)


def write_shopper_rows(folder: Path, progress: Progress) -> None:
    """Writes the rows of recent events and of purchases beside `folder`/events.parquet."""
    events = folder / "events.parquet"
    task = progress.add_task("building shoppers' rows", total=pq.ParquetFile(events).metadata.num_rows)
    with ExitStack() as stack:
        writers = {}
        for view, empty in (
            (schema.RECENT_VIEW, recent_rows(_no_events())),
            (schema.PURCHASES_VIEW, purchase_rows(purchases(_no_events()))),
        ):
            writers[view] = stack.enter_context(pq.ParquetWriter(folder / f"{view}.parquet", empty.to_arrow().schema))
        for chunk in whole_shoppers(events):
            for view, rows in (
                (schema.RECENT_VIEW, recent_rows(newest_events(chunk))),
                (schema.PURCHASES_VIEW, purchase_rows(purchases(chunk))),
            ):
                writers[view].write_table(rows.to_arrow())
            progress.advance(task, chunk.height)


def _sort(source: Path, target: Path, read_ms: int) -> None:
    spill = target.parent / "spill"
    with duckdb.connect(config={"memory_limit": SORT_MEMORY, "temp_directory": str(spill)}) as connection:
        connection.execute("SET preserve_insertion_order = false")
        connection.execute(
            f"COPY (SELECT * FROM read_parquet({_quoted(source)}) ORDER BY shopper, event_time_ms, position) "
            f"TO {_quoted(target)} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880, "
            f"KV_METADATA {{{point_in_time.READ_TIME}: '{read_ms}'}})"
        )
    shutil.rmtree(spill, ignore_errors=True)


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _no_events() -> pl.DataFrame:
    columns = {**EVENT_COLUMNS, "known_time_ms": pl.Int64()}
    return pl.DataFrame(schema={name: columns[name] for name in OFFLINE_EVENTS})


def _users(engine: Engine) -> pl.DataFrame:
    return Users(engine).frame().with_columns(shopper=pl.format("u:{}", "user_id"))
