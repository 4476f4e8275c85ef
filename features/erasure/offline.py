"""A person in the Parquet files below the shop's home: rewritten without them, each replaced as a whole.

Found by column: `shopper`, `user_id`, `session_id`; in what an import rejected, whose columns are the shop's own, any
column that holds an id. Call it with the lock `erasure`, under which the jobs publish: what a job that was killed had
begun to write there is nobody's, and goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.erasure.records import Person
from features.outage import words
from features.settings import Settings

WORKING_FOLDERS: Final = (".building", "materialize", "work-")
"""Beginnings of the names of folders that belong to a job under way or cut short."""
BATCH_ROWS: Final = 100_000
UNFINISHED: Final = ".unfinished"
"""Ending of a file that is written beside a Parquet file, under the lock, and then renamed into its place."""
_ID_COLUMNS = ("shopper", "user_id", "session_id")


def rewrite_files(settings: Settings, person: Person) -> None:
    """Every Parquet file below home but those of jobs under way.

    Raises:
        OSError: a file cannot be read or written; the others are done.
    """
    failed: list[str] = []
    for path in settings.home.rglob(f"*{UNFINISHED}"):
        path.unlink(missing_ok=True)
    for path in sorted(settings.home.rglob("*.parquet")):
        inside = path.relative_to(settings.home)
        if any(part.startswith(WORKING_FOLDERS) for part in inside.parts[:-1]):
            continue
        try:
            rewrite(path, person, any_column=inside.parts[0] == "imports")
        except (OSError, pa.ArrowException) as error:
            failed.append(f"{path}: {words(error)}")
    if failed:
        more = f", and {len(failed) - 1} more" if failed[1:] else ""
        raise OSError(f"{failed[0]}{more}; make room on the disk, or delete a file that is broken")


def rewrite(path: Path, person: Person, *, any_column: bool = False) -> None:
    """One file; one that does not know the person stays as it is, and so does one that was deleted meanwhile.

    Args:
        any_column: an id in any column counts, and as a word inside a text.
    """
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        return
    with file:
        schema = file.schema_arrow
        names = schema.names if any_column else [name for name in _ID_COLUMNS if name in schema.names]
        marks = _any_column(names, person) if any_column else _by_id_columns(names, person)
        looked_at = (_marked(batch, names, marks) for batch in file.iter_batches(BATCH_ROWS, columns=names))
        if not names or not any(marked.select(pl.any_horizontal(pl.all().any())).item() for marked in looked_at):
            return
        fresh = path.with_suffix(UNFINISHED)
        with pq.ParquetWriter(fresh, schema, compression="zstd") as writer:
            for batch in file.iter_batches(BATCH_ROWS):
                marked = _marked(batch, names, marks)
                if marked["shared"].any():
                    place = schema.names.index("session_id")
                    nothing = pa.scalar(None, schema.field(place).type)
                    cleared = pc.if_else(marked["shared"].to_arrow(), nothing, batch.column(place))
                    batch = batch.set_column(place, schema.field(place), cleared)
                writer.write_batch(batch.filter((~marked["theirs"]).to_arrow()))
    fresh.replace(path)


def _marked(batch: pa.RecordBatch, names: list[str], marks: dict[str, pl.Expr]) -> pl.DataFrame:
    columns = {name: _told(batch.column(name)) for name in names}
    frame = pl.DataFrame(pl.from_arrow(pa.RecordBatch.from_pydict(columns)))
    return frame.with_columns(**{name: mark.fill_null(False) for name, mark in marks.items()}).select(*marks)


def _by_id_columns(names: list[str], person: Person) -> dict[str, pl.Expr]:
    """`theirs`: rows of the person. `shared`: rows of others that name one of the person's sessions."""
    of = {name: pl.col(name).cast(pl.String) for name in names}
    in_session = of["session_id"].is_in(person.sessions) if "session_id" in of else pl.lit(False)
    if "shopper" in of:
        theirs = of["shopper"].is_in(person.keys)
    elif "user_id" in of:
        theirs = (of["user_id"] == (person.user_id or None)) | (of["user_id"].is_null() & in_session)
    else:
        theirs = in_session
    return {"theirs": theirs, "shared": in_session & ~theirs.fill_null(False)}


def _any_column(names: list[str], person: Person) -> dict[str, pl.Expr]:
    words = rf"(^|\W)({'|'.join(map(re.escape, person.ids))})(\W|$)"
    texts = [pl.col(name).cast(pl.String) for name in names]
    return {"theirs": pl.any_horizontal(text.str.contains(words) for text in texts), "shared": pl.lit(False)}


def _told(column: pa.Array) -> pa.Array:
    """A column as it can be searched: bytes, UUIDs and what has several values as text."""
    kind = column.type
    plain = not isinstance(kind, pa.BaseExtensionType) and not pa.types.is_nested(kind)
    if plain and not any(
        of(kind) for of in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    ):
        return column
    return pa.array(["\n".join(_texts(value)) for value in column.to_pylist()], pa.string())


def _texts(value: Any) -> Iterator[str]:
    """Every single value in a value of any kind."""
    if isinstance(value, bytes):
        yield value.decode(errors="replace")
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)
    elif value is not None:
        yield str(value)
