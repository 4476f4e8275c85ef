"""Long-term vectors of a release: `python -m features materialize [--release N] [--every MINUTES]`.

Each shopper's newest events go through the release's own encoder (`features.online.interest_encoder`), and the vectors
into the view `user_interest_vN`, online and offline. Only shoppers with events since the last run are encoded; all are
where the release is being published, or where the online store has lost the vectors. A run that was cut short goes on
where it stopped. With `--every` the process stays: what a few shoppers cost is mostly its start.
"""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
import threading
import zlib
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow.parquet as pq
from rich.progress import Progress
from sqlalchemy import ColumnElement, Engine, func, select

from features.database.counters import advance_counter, read_counter
from features.database.engine import DatabaseError, open_database
from features.database.models import Event
from features.erasure.offline import UNFINISHED
from features.erasure.survivors import Survivors
from features.locks import locked
from features.log.event_log import EventLog
from features.online.interest_encoder import Encoders, InterestEncoder, MaterializeError
from features.online.rows import interest_rows, recent_rows
from features.outage import Outage, cause
from features.releases.release import ReleaseError, read_manifest
from features.releases.release_table import ReleaseTable
from features.schema import (
    ENCODER_FILE,
    FUSION_MODEL,
    HISTORY_EVENTS,
    SEQUENCE_TYPES,
    interest_view,
    offline_file,
    shopper_key,
)
from features.settings import Settings
from features.stream.touched import sign_ins_after
from features.terminal import stderr

if TYPE_CHECKING:
    from feast import FeatureStore

CHUNK_SHOPPERS: Final = 20_000
"""Shoppers in one call of the encoder; what a run that is cut short may have to do again."""
GROUP_SHOPPERS: Final = 5_000
"""Histories in memory at once."""
SOUGHT_EVENTS: Final = 1_000
"""Of how many events the shoppers' vectors are looked for, to see whether the online store still has any."""
logger = logging.getLogger(__name__)

RUN_FILE: Final = "run.json"
_HISTORY: Final = ("shopper", "item_ids", "event_types", "event_times_ms", "log_position")


def materialized_counter(release: int) -> str:
    """The counter that holds the position through which a release's vectors reflect the log."""
    return f"materialized:{release}"


def work_folder(settings: Settings, release: int) -> Path:
    """Where a run keeps how far it has come, until it is done."""
    return settings.home / "materialize" / str(release)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run does, kept in a file until it is done: shoppers with events in (since, through]."""

    encoder: str
    """Identity of the encoder: its checksum in the manifest."""
    since: int
    through: int
    done: str = ""
    """Shoppers up to this key are encoded."""


def active_shoppers(engine: Engine, release: int, within_ms: int) -> list[str]:
    """Shoppers with events in the last `within_ms` of the log that a release's vectors are to reflect, ascending.

    A session whose events have all gone over to a person is none.
    """
    through = read_counter(engine, materialized_counter(release))
    known = _acts(through)
    newest = select(func.max(Event.event_time_ms)).where(*known).scalar_subquery()
    statement = select(Event.shopper).where(*known, Event.event_time_ms > newest - within_ms).distinct()
    with engine.connect() as connection:
        shoppers = list(connection.scalars(statement))
    return sorted(set(EventLog(engine).recent_of(shoppers, 1)["shopper"]))


def _acts(through: int) -> tuple[ColumnElement[bool], ...]:
    """Of the events that a history may hold, those up to a position."""
    return Event.position <= through, Event.event_type.in_([int(kind) for kind in SEQUENCE_TYPES])


def vectors_lost(settings: Settings, engine: Engine, release: int, through: int) -> bool:
    """Whether the online store has none of the vectors of those who acted last up to a position: it is another one.

    Raises:
        StoreError: the online store cannot be reached, or knows nothing of the release.
    """
    from feast.errors import FeatureViewNotFoundException  # Feast takes a second to import

    from features import store

    statement = select(Event.shopper).where(*_acts(through)).order_by(Event.position.desc()).limit(SOUGHT_EVENTS)
    with engine.connect() as connection:
        acted = set(connection.scalars(statement))
    shoppers = EventLog(engine).recent_of(sorted(acted), 1)["shopper"].to_list()
    if not shoppers:
        return False
    with store.opened(settings) as feast:
        try:
            return not store.count_interests(feast, release, shoppers)
        except (FeatureViewNotFoundException, sqlite3.OperationalError) as error:
            raise store.StoreError(
                f"cannot be looked for ({error}); run `python -m features apply`, then `… materialize`"
            ) from None


def missing_vectors(settings: Settings, engine: Engine, release: int) -> str:
    """What is wrong with a release's long-term vectors online, with the remedy; empty where they are there."""
    through = read_counter(engine, materialized_counter(release)) or EventLog(engine).last_position()
    try:
        lost = vectors_lost(settings, engine, release, through)
    except DatabaseError as error:
        return str(error)
    return "not in the online store; run `python -m features materialize`" if lost else ""


def materialize_every(settings: Settings, release: int | None, every_s: float, stop: threading.Event) -> None:
    """Materializes again and again until `stop` is set; a run that fails is said once, and tried again in its turn."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    told = Outage(logger, "long-term vectors cannot be made, trying again", "long-term vectors are made again")
    with closing(Encoders()) as encoders:
        while not stop.is_set():
            try:
                materialize(settings, release, encoders=encoders)
                told.ends()
            except Exception as error:  # whatever a database, store or disk raises: the next run may be better
                told.begins(cause(error))
            stop.wait(every_s)


def materialize(
    settings: Settings, release: int | None = None, folder: Path | None = None, *, encoders: Encoders | None = None
) -> int:
    """Encodes the shoppers with new events and writes their vectors.

    Args:
        release: the live one if not given.
        folder: the release's files where they are not in the model repository yet; every shopper is encoded then.
        encoders: keeps the encoder's process for the next run.

    Returns:
        How many shoppers were encoded.

    Raises:
        MaterializeError: there is no such release, or its encoder fails.
    """
    engine = open_database(settings.log_url)
    try:
        number = release if release is not None else _live(engine)
        files = folder or settings.model_repository / FUSION_MODEL / str(number)
        with locked(settings, "materialize", engine=engine), ExitStack() as own:
            kept = encoders or own.enter_context(closing(Encoders()))
            return _materialize(settings, engine, number, files, kept, whole=folder is not None)
    finally:
        engine.dispose()


def _materialize(
    settings: Settings, engine: Engine, release: int, files: Path, encoders: Encoders, *, whole: bool
) -> int:
    work = work_folder(settings, release)
    work.mkdir(parents=True, exist_ok=True)
    run = _run(settings, engine, release, files, work, whole=whole)
    if run.since and vectors_lost(settings, engine, release, run.since):
        stderr.print(f"Release {release}: its vectors are not in the online store any more, all shoppers are encoded")
        run = replace(run, since=0, done="")
    shoppers = _shoppers(engine, run)
    encoded = 0
    if shoppers:
        encoded = _encode(settings, engine, release, run, shoppers, encoders.of(files, run.encoder))
    advance_counter(engine, materialized_counter(release), run.through)
    shutil.rmtree(work)
    stderr.print(f"Release {release}: {encoded:,} shoppers encoded, through position {run.through:,}")
    return encoded


def _encode(
    settings: Settings, engine: Engine, release: int, run: Run, shoppers: Sequence[str], encoder: InterestEncoder
) -> int:
    """Encodes the shoppers and writes their vectors; returns how many have one."""
    from features import store  # Feast takes a second to import, in which the encoder starts

    work = work_folder(settings, release)
    survivors = Survivors(settings, engine)
    histories, vectors = work / "histories.parquet", work / "vectors.parquet"
    encoded = 0
    with (
        Progress(console=stderr, transient=True) as progress,
        store.opened(settings) as feast,
    ):
        task = progress.add_task(f"encoding for release {release}", total=len(shoppers))
        for start in range(0, len(shoppers), CHUNK_SHOPPERS):
            chunk = shoppers[start : start + CHUNK_SHOPPERS]
            if write_histories(EventLog(engine), chunk, histories):
                encoder.encode(histories, vectors)
                part = f"part-{run.through:012d}-{zlib.crc32(chunk[-1].encode()):08x}.parquet"
                with locked(settings, "erasure", engine=engine):
                    rows = survivors.among(_vectors(histories, vectors))
                    _write_offline(rows, offline_file(settings.offline, interest_view(release)) / part)
                    store.write_interest(feast, release, rows)
                encoded += rows.height
            _delete_emptied(settings, engine, feast, chunk)
            run = replace(run, done=chunk[-1])
            (work / RUN_FILE).write_text(json.dumps(asdict(run)))
            progress.advance(task, len(chunk))
    return encoded


def write_histories(log: EventLog, shoppers: Sequence[str], path: Path) -> int:
    """Writes what the encoder reads, a row for each shopper who did anything; returns how many.

    Columns: shopper, item_ids list<str>, event_types list<i32>, event_times_ms list<i64>, ascending and the newest
    `HISTORY_EVENTS`, and log_position, the newest of them.
    """
    written = 0
    schema = recent_rows(log.recent_of([], HISTORY_EVENTS)).select(_HISTORY).to_arrow().schema
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(shoppers), GROUP_SHOPPERS):
            events = log.recent_of(shoppers[start : start + GROUP_SHOPPERS], HISTORY_EVENTS)
            rows = recent_rows(events).select(_HISTORY)
            writer.write_table(rows.to_arrow().cast(schema))
            written += rows.height
    return written


def _run(settings: Settings, engine: Engine, release: int, files: Path, work: Path, *, whole: bool) -> Run:
    """The run that was cut short, if it was of the same encoder, or a new one."""
    try:
        encoder = read_manifest(files).files[ENCODER_FILE]
    except (ReleaseError, KeyError) as error:
        raise MaterializeError(f"release {release} cannot be materialised: {error}") from None
    with suppress(FileNotFoundError, ValueError):  # there is none, or the disk was full when it was written
        run = Run(**json.loads((work / RUN_FILE).read_text()))
        if run.encoder == encoder:
            return run
    if whole:  # a number that was used before, by a release that was never finished
        shutil.rmtree(offline_file(settings.offline, interest_view(release)), ignore_errors=True)
    since = 0 if whole else read_counter(engine, materialized_counter(release))
    return Run(encoder=encoder, since=since, through=EventLog(engine).last_position())


def _shoppers(engine: Engine, run: Run) -> list[str]:
    """Those with events in the run's range who are not done, and sessions that signed in, ascending."""
    statement = select(Event.shopper).where(Event.position <= run.through)
    if run.since:
        statement = statement.where(Event.position > run.since)
    with engine.connect() as connection:
        shoppers = set(connection.scalars(statement.distinct()))
    if run.since:
        signed_in = sign_ins_after(engine, run.since, run.through)
        shoppers.update(shopper_key(None, session_id) for session_id, _ in signed_in)
    return sorted(shopper for shopper in shoppers if shopper > run.done)  # a database may have another order of texts


def _delete_emptied(settings: Settings, engine: Engine, feast: FeatureStore, shoppers: Sequence[str]) -> None:
    """Deletes what is left online of the sessions whose events have all gone over to a person."""
    from features import store

    sessions = [shopper for shopper in shoppers if shopper.startswith(shopper_key(None, "?")[:-1])]
    if sessions:
        with locked(settings, "online-rows", engine=engine):  # so that none of them gets its first event meanwhile
            acted = set(EventLog(engine).recent_of(sessions, 1)["shopper"])
            store.delete_shoppers(feast, [session for session in sessions if session not in acted])


def _vectors(histories: Path, vectors: Path) -> pl.DataFrame:
    """Rows of the release's view from what the encoder read and what it wrote."""
    rows = interest_rows(pl.read_parquet(histories), pl.read_parquet(vectors))
    read = pq.ParquetFile(histories).metadata.num_rows
    if rows.height != read:
        raise MaterializeError(f"the encoder made {rows.height} vectors of {read} histories; publish the release again")
    if not rows.select(pl.col("vector").list.eval(pl.element().is_finite().all()).list.first().all()).item():
        raise MaterializeError("the encoder made vectors that are not finite; publish the release again")
    return rows


def _write_offline(rows: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(path.with_suffix(UNFINISHED))
    path.with_suffix(UNFINISHED).replace(path)


def _live(engine: Engine) -> int:
    live = ReleaseTable(engine).live()
    if live is None:
        raise MaterializeError("no release is live; publish one first: python -m training publish")
    return live
