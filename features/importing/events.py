"""Events on their way: rows are cleaned into a table on disk, compared with each other, and streamed out by time.

Memory stays within `MEMORY_LIMIT` whatever the file's size: DuckDB streams the file and spills to disk what a sort or a
grouping cannot hold. Bursts are counted over the whole file, in clock minutes and hours, so no border of a batch
hides one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from features.importing.cleaning import EVENT_FIELDS, canonical_rows, with_one_format
from features.importing.errors import ImportFailed
from features.importing.lines import settle_faults
from features.importing.mapping import Bursts, EventsMapping, Mapping
from features.importing.source import ROW, Source, identifier, literal, unread
from features.schema import EventType

MEMORY_LIMIT: Final = "512MB"
BATCH_ROWS: Final = 100_000

_ACTS = ", ".join(
    str(int(kind)) for kind in (EventType.VIEW, EventType.CLICK, EventType.CART, EventType.FAVOURITE, EventType.SEARCH)
)


def open_workspace(folder: Path, timezone: str | None) -> duckdb.DuckDBPyConnection:
    """A DuckDB database in `folder` that reads times without an offset in `timezone`."""
    connection = duckdb.connect(str(folder / "import.duckdb"))
    for setting in (
        f"memory_limit = '{MEMORY_LIMIT}'",
        f"temp_directory = {literal(str(folder / 'spill'))}",
        f"TimeZone = {literal(timezone or 'UTC')}",
        "enable_progress_bar = true",
        "enable_progress_bar_print = false",
    ):
        connection.execute(f"SET {setting}")
    return connection


def stage(connection: duckdb.DuckDBPyConnection, source: Source, mapping: Mapping) -> Source:
    """Fills the tables `staged` (each row and the rule that it breaks), `late` (rows that repeat or burst) and the
    source's `lost`.

    Returns:
        The source, with the rows in it that a stray quotation mark had swallowed.

    Raises:
        ImportFailed: a column cannot serve, no row's time can be read, or times mix with and without an offset.
    """
    try:
        mapping = with_one_format(connection, source, mapping)
        connection.execute(f"CREATE TEMP TABLE staged AS {canonical_rows(connection, source, mapping)}")
    except duckdb.Error as error:
        raise unread(source.path, error) from None
    source, swallowed = settle_faults(connection, source)
    if swallowed:
        connection.execute(f"INSERT INTO staged {canonical_rows(connection, swallowed, mapping)}").fetchall()
    _check(connection, source, mapping)
    connection.execute("CREATE TEMP TABLE late (row BIGINT, reason VARCHAR)")
    if mapping.rules.duplicates:
        connection.execute(
            "INSERT INTO late SELECT row, 'duplicate' FROM staged JOIN ("
            "SELECT event_id, min(row) AS kept FROM staged WHERE reason IS NULL GROUP BY event_id HAVING count(*) > 1"
            ") USING (event_id) WHERE row <> kept"
        )
    else:
        _number_equal_rows(connection)
    _mark_bursts(connection, mapping.rules.bursts)
    return source


def rows_for_log(connection: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
    """The good rows by time, as columns of the table `events`; those that no row fills are left out.

    What is imported counts as having arrived when it happened, so that features stay correct at a point in time.
    """
    optional = [name for name in EVENT_FIELDS if name not in ("event_type", "user_id", "event_time_ms")]
    filled = _row(connection, f"SELECT {', '.join(f'count({name})' for name in optional)} FROM staged")
    kept = [name for name, count in zip(optional, filled, strict=True) if count]
    yield from (
        connection.sql(
            "SELECT event_id, coalesce('u:' || user_id, 's:' || session_id) AS shopper, event_type, event_time_ms, "
            f"event_time_ms AS arrival_time_ms{''.join(f', {name}' for name in kept)} "
            "FROM staged WHERE reason IS NULL AND row NOT IN (SELECT row FROM late) ORDER BY event_time_ms, row"
        ).to_arrow_reader(BATCH_ROWS)
    )


def sessions_join(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether a session is anonymous in one row and a person's in another."""
    (joins,) = _row(
        connection,
        "SELECT exists(SELECT 1 FROM staged WHERE reason IS NULL AND session_id IS NOT NULL "
        "GROUP BY session_id HAVING bool_or(user_id IS NULL) AND bool_or(user_id IS NOT NULL))",
    )
    return bool(joins)


def counts(connection: duckdb.DuckDBPyConnection, source: Source) -> tuple[int, dict[str, int]]:
    """Rows read, and rows rejected by rule; a line that could not be taken apart is one too."""
    (read,) = _row(connection, f"SELECT (SELECT count(*) FROM staged) + (SELECT count(*) FROM {source.lost})")
    rejected = connection.execute(
        "SELECT reason, count(*) FROM (SELECT reason FROM staged WHERE reason IS NOT NULL "
        f"UNION ALL SELECT reason FROM late UNION ALL SELECT 'unreadable_line' FROM {source.lost}) GROUP BY reason"
    ).fetchall()
    return read, dict(rejected)


def without_item(connection: duckdb.DuckDBPyConnection, sample: int) -> tuple[float, list[str]]:
    """The share of the good rows whose item is not among the table `described_items`, and a sample of their items."""
    query = (
        "SELECT item_id, count(*) AS rows, id IS NULL AS absent FROM staged LEFT JOIN "
        "(SELECT id FROM described_items WHERE reason IS NULL) ON id = item_id "
        "WHERE reason IS NULL AND item_id IS NOT NULL GROUP BY ALL"
    )
    share, items = _row(
        connection,
        "SELECT coalesce(sum(rows) FILTER (absent) / sum(rows), 0), "
        f"max(item_id, {sample}) FILTER (absent) FROM ({query})",
    )
    return float(share), items or []


def write_rejected(connection: duckdb.DuckDBPyConnection, source: Source, file: Path) -> None:
    """The rejected rows as Parquet: `row` (1 is the first row of data), `reason`, and the row's own columns.

    Of a line that could not be taken apart: its number in the file as `line`, and its text as `line_text`.
    """
    own = "__text AS line_text" if source.kind == "json" else f"* EXCLUDE ({identifier(ROW)})"
    query = (
        "SELECT r.row, r.reason, s.* EXCLUDE (n) FROM ("
        "SELECT row, reason FROM staged WHERE reason IS NOT NULL UNION ALL SELECT row, reason FROM late) AS r "
        f"JOIN (SELECT {identifier(ROW)} AS n, {own} FROM {source.relation}) AS s ON s.n = r.row"
    )
    if _row(connection, f"SELECT count(*) FROM {source.lost}") != (0,):
        query += f" UNION ALL BY NAME SELECT 'unreadable_line' AS reason, line, line_text FROM {source.lost}"
    connection.execute(
        f"COPY ({query} ORDER BY row) TO {literal(str(file))} (FORMAT parquet, COMPRESSION zstd)"
    ).fetchall()


def _row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    (row,) = connection.execute(query).fetchall()
    return tuple(row)


def _number_equal_rows(connection: duckdb.DuckDBPyConnection) -> None:
    """Gives each of the rows that are the same in everything an id of its own; the first keeps that of a single row."""
    connection.execute(
        "UPDATE staged SET event_id = event_id || '-' || number FROM ("
        "SELECT row, row_number() OVER (PARTITION BY event_id ORDER BY row) AS number FROM staged "
        "WHERE reason IS NULL AND NOT own_id QUALIFY number > 1"
        ") AS repeated WHERE staged.row = repeated.row"
    ).fetchall()


def _check(connection: duckdb.DuckDBPyConnection, source: Source, mapping: Mapping) -> None:
    """Refuses a file that the mapping does not fit, before a row of it is stored."""
    events, name = mapping.events, source.path.name
    query = "SELECT count(*), count(*) FILTER (reason IS NULL), bool_or(zoned), bool_and(zoned) FROM staged"
    rows, good, some_zoned, all_zoned = _row(connection, query)
    if not rows:
        raise ImportFailed(_without_rows(connection, source))
    if some_zoned and not all_zoned and events.time.timezone is None:
        raise ImportFailed(
            f"{name}: column {'/'.join(events.time.column)} mixes times with and without a UTC offset; "
            "say in the mapping what those without mean: events.time.timezone: Europe/London (or UTC)"
        )
    if good:
        return
    expected = _misfits(events)
    listed = ", ".join(map(literal, expected))
    query = (
        f"SELECT reason, any_value(example) FROM staged WHERE reason IN ({listed}) "
        f"GROUP BY reason HAVING 2 * count(*) > {rows}"
    )
    for reason, example in connection.execute(query).fetchall():
        raise ImportFailed(f"{name}: {expected[reason].replace('EXAMPLE', repr(example))}")


def _without_rows(connection: duckdb.DuckDBPyConnection, source: Source) -> str:
    """What is wrong with a file of which nothing could be taken apart into rows."""
    lost = _row(connection, f"SELECT count(*), min(line), arg_min(line_text, line) FROM {source.lost}")
    if not lost[0]:
        return f"{source.path.name} has no rows of data; export it again"
    return (
        f"{source.path.name}: no line can be taken apart into the columns {', '.join(source.types)}, for example line "
        f"{lost[1]}, {lost[2]!r}. Correct the file, or say in the mapping how it is to be read (events.separator, "
        "events.columns)"
    )


def _misfits(events: EventsMapping) -> dict[str, str]:
    """Reasons that say of a file without one good row that the mapping does not fit it, and what to do."""
    shopper = [name.removesuffix("?") for given in (events.user, events.session) if given for name in given.column]
    time, item, kind = ("/".join(names) for names in (events.time.column, events.item.column, events.type.column))
    empty = "empty or no single value in nearly every row. Correct the file, or name another column in the mapping"
    marks = {
        ".": 'point. Correct the file, or say in the mapping that it is a comma: events.decimal: ","',
        ",": "comma, as the mapping's events.decimal says. Correct the mapping or the file",
    }
    return {
        "missing_user": f"no row can be used: {' and '.join(shopper)} is {empty}: events.user or events.session",
        "missing_item": f"no row can be used: {item} is {empty}: events.item",
        "missing_time": f"no row can be used: {time} is {empty}: events.time",
        "missing_type": f"no row can be used: {kind} is {empty}: events.type",
        "unreadable_time": f"no time in column {time} can be read, for example EXAMPLE; "
        'expected ISO 8601 or a number. Add the pattern to the mapping: events.time.formats: ["%d/%m/%Y %H:%M"]',
        "absurd_time": f"no time in column {time} lies between the mapping's earliest and "
        "latest day, for example EXAMPLE; say in the mapping how it is to be read (events.time.formats, or "
        "events.time.unit of numbers), or correct rules.earliest and rules.latest",
        "unknown_type": f"no event type in column {kind} is known, for example EXAMPLE; "
        "say what the values mean in the mapping: events.type.values: {VALUE: view}",
        "unreadable_number": "quantity, price or a column of rules.minimum is no number in any row, for example "
        f"EXAMPLE; expected a number with a decimal {marks[events.decimal]}",
    }


def _mark_bursts(connection: duckdb.DuckDBPyConnection, bursts: Bursts) -> None:
    acts = (
        "SELECT row, coalesce('u:' || user_id, 's:' || session_id) AS shopper, event_time_ms // {span} AS span "
        f"FROM staged WHERE reason IS NULL AND event_type IN ({_ACTS}) AND row NOT IN (SELECT row FROM late)"
    )
    for limit, span_ms in ((bursts.per_minute, 60_000), (bursts.per_hour, 3_600_000)):
        if limit is not None:
            spans = acts.format(span=span_ms)
            connection.execute(
                f"INSERT INTO late SELECT row, 'burst' FROM ({spans}) JOIN ("
                f"SELECT shopper, span FROM ({spans}) GROUP BY shopper, span HAVING count(*) > {limit}"
                ") USING (shopper, span)"
            )
