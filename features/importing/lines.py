"""Lines that could not be taken apart, and the good lines that a stray quotation mark above them swallowed.

A field that opens with a quotation mark and never closes it runs on over the next lines, and DuckDB gives up all of
them as one fault. Here the first of them stays the fault, and each line behind it is read again on its own.
"""

from __future__ import annotations

import csv
from dataclasses import replace

import duckdb
import polars as pl

from features.importing.source import LINE, ROW, Source, identifier, literal


def settle_faults(connection: duckdb.DuckDBPyConnection, source: Source) -> tuple[Source, Source | None]:
    """Fills the table `source.lost` (line, line_text) after `source` was read.

    Returns:
        The source with the swallowed rows in it, numbered on from its own, and those rows alone (None if there are
        none).
    """
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {source.lost} (line BIGINT, line_text VARCHAR)")
    if source.faults is None or not _exists(connection, source.faults):
        return source, None
    faults = connection.execute(
        f"SELECT CAST(line AS BIGINT), any_value(csv_line) FROM {identifier(source.faults)} GROUP BY line ORDER BY line"
    ).fetchall()
    lost: list[tuple[int, str]] = []
    found: list[tuple[str | None, ...]] = []
    for number, text in faults:
        first, *swallowed = (text or "").lstrip("\r\n").splitlines() or [""]  # the end of the line before it
        lost.append((number, first))
        for offset, line in enumerate(swallowed, 1):
            values = next(csv.reader([line], delimiter=(source.separator or ",")[0]), [])
            if len(values) == len(source.types):
                found.append(tuple(value or None for value in values))
            elif line:
                lost.append((number + offset, line))
    _insert(
        connection, source.lost, pl.DataFrame(lost, schema={"line": pl.Int64, "line_text": pl.String}, orient="row")
    )
    if not found:
        return source, None
    ((rows,),) = connection.execute(f"SELECT count(*) FROM {source.relation}").fetchall()
    frame = pl.DataFrame(found, schema=dict.fromkeys(source.types, pl.String), orient="row").with_columns(
        pl.int_range(rows + 1, rows + 1 + pl.len(), dtype=pl.Int64).alias(ROW)
    )
    columns = ", ".join(f"{identifier(name)} VARCHAR" for name in source.types)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {source.swallowed} ({columns}, {identifier(ROW)} BIGINT)")
    _insert(connection, source.swallowed, frame)
    whole = f"(SELECT * FROM {source.relation} UNION ALL SELECT * FROM {source.swallowed})"
    return replace(source, relation=whole), replace(source, relation=source.swallowed)


def without_lost_lines(connection: duckdb.DuckDBPyConnection, source: Source) -> Source:
    """Fills the table `source.lost`, after `source` was read, also with the lines of JSON that are none.

    Returns:
        The source without lost lines, and with the rows that they had swallowed.
    """
    settled, _ = settle_faults(connection, source)
    if source.kind != "json":
        return settled
    insert = f"INSERT INTO {source.lost} SELECT {ROW}, __text FROM {source.relation} WHERE {LINE} IS NULL"
    ((inserted,),) = connection.execute(insert).fetchall()
    if not inserted:
        return source
    return replace(source, relation=f"(SELECT * FROM {source.relation} WHERE {LINE} IS NOT NULL)")


def _insert(connection: duckdb.DuckDBPyConnection, table: str, frame: pl.DataFrame) -> None:
    connection.register("given", frame.to_arrow())
    connection.execute(f"INSERT INTO {table} SELECT * FROM given").fetchall()
    connection.unregister("given")


def _exists(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    query = f"SELECT count(*) FROM duckdb_tables() WHERE table_name = {literal(table)}"
    ((count,),) = connection.execute(query).fetchall()
    return bool(count)
