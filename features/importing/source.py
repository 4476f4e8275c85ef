"""Opens a file of any format as one DuckDB relation with numbered rows.

Parquet and CSV are streamed. JSON lines are read as text and taken apart by column, so that one broken line costs only
itself; which columns there are shows once all of them were read. Excel, which has no streaming form, is turned into
Parquet first.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import duckdb

from features.importing.errors import ImportFailed, first_line
from features.importing.numbers import DecimalMark, number_of_text
from features.importing.text_files import as_duckdb_reads_it
from features.importing.workbook import read_workbook

Kind = Literal["parquet", "csv", "json"]
FORMATS: Final[dict[str, str]] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".dat": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".xlsx": "excel",
    ".xls": "excel",
}
ROW: Final = "__row"
LINE: Final = "__line"
_LONGEST_LINE_BYTES = 16_000_000
_SAMPLE_LINES = 200
_TOLD_SEPARATOR: Final = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
"""The first line of a CSV file that is meant for Excel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file as SQL: `relation` has the columns `types`, and `__row`, 1 for the first row of data."""

    path: Path
    kind: Kind
    relation: str
    types: dict[str, str]
    """Column to DuckDB's type; every column of CSV and JSON lines is VARCHAR."""
    separator: str | None = None
    """Of CSV."""
    faults: str | None = None
    """The table into which DuckDB puts lines that cannot be taken apart; it is there once the file was read."""
    decimal: DecimalMark = "."
    """Of numbers that are text."""
    nulls: Sequence[str] = ()
    """Texts that say that nothing is there."""
    left_out: Sequence[str] = ()
    """Sheets of a workbook that were not read: they have other columns than the first."""

    @property
    def lost(self) -> str:
        """The table that `features.importing.lines` fills with the lines that cannot be taken apart."""
        return f"lost_{_digest(self.path)}"

    @property
    def swallowed(self) -> str:
        """The table that `features.importing.lines` fills with the good rows behind a stray quotation mark."""
        return f"swallowed_{_digest(self.path)}"

    def column(self, name: str) -> str:
        """The SQL of a column's value."""
        value = identifier(name)
        if self.kind == "json":
            value = f"json_extract_string({identifier(LINE)}, {_json_path(name)})"
        if not self.nulls or self.types[name] != "VARCHAR":
            return value
        return f"CASE WHEN trim({value}) NOT IN ({', '.join(map(literal, self.nulls))}) THEN {value} END"

    def is_single(self, name: str) -> str:
        """The SQL of whether a column's value is one text or number, and no object or array of JSON."""
        if self.kind != "json":
            return "true"
        return f"json_type({identifier(LINE)}, {_json_path(name)}) NOT IN ('OBJECT', 'ARRAY')"

    def number(self, name: str) -> str:
        """The SQL of a column's value as a number, null where it is none."""
        sql = self.column(name)
        return number_of_text(sql, self.decimal) if self.types[name] == "VARCHAR" else f"TRY_CAST({sql} AS DOUBLE)"

    def find(self, names: Sequence[str], field: str) -> str | None:
        """The first of `names` that the file has; None if a name ends in `?` and none is there.

        Raises:
            ImportFailed: the file has none of them.
        """
        for name in names:
            if name.removesuffix("?") in self.types:
                return name.removesuffix("?")
        if not names or any(name.endswith("?") for name in names):
            return None
        raise ImportFailed(
            f"{self.path.name} has no column {' or '.join(map(repr, names))}, which the mapping's {field} names; "
            f"it has {', '.join(map(repr, self.types))}. Correct the mapping or choose another with --mapping"
        )


def _json_path(name: str) -> str:
    return literal("$." + json.dumps(name))


def identifier(name: str) -> str:
    """A quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """A quoted SQL string."""
    return "'" + value.replace("'", "''") + "'"


def file_format(path: Path) -> str:
    """parquet, csv, json or excel, by the name's ending.

    Raises:
        ImportFailed: the file is missing, empty, or of no known format.
    """
    if not path.exists():
        raise ImportFailed(f"{path}: no such file")
    if not path.is_file():
        raise ImportFailed(f"{path} is a folder; give one file")
    if path.stat().st_size == 0:
        raise ImportFailed(f"{path.name} is empty (0 bytes); export it again")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else (suffixes or [""])[-1]
    kind = FORMATS.get(suffix)
    if kind is None or (suffixes[-1] == ".gz" and kind not in ("csv", "json")):
        raise ImportFailed(f"{path.name}: unknown format; known are {', '.join(FORMATS)} and .gz of the text formats")
    return kind


def open_source(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    work: Path,
    *,
    separator: str | None = None,
    columns: Sequence[str] = (),
    encoding: str | None = None,
    decimal: DecimalMark = ".",
    nulls: Sequence[str] = (),
    sample: bool = False,
) -> Source:
    """Opens a file; only its head or its metadata is read here, but of Excel and JSON lines all.

    Args:
        work: folder for the Parquet form of an Excel file.
        separator, encoding: of CSV; found out if not given.
        columns: the names in a CSV file that has no header line.
        decimal, nulls: of numbers that are text; what says that nothing is there.
        sample: only the first rows are needed.

    Raises:
        ImportFailed: it is missing, empty, broken, or of no known format.
    """
    kind = file_format(path)
    if kind == "excel":
        frame, left_out = read_workbook(path, 1_000 if sample else None)
        converted = work / f"{_digest(path)}.parquet"
        frame.write_parquet(converted)
        source = replace(_parquet(connection, converted, path), left_out=left_out)
    elif kind == "parquet":
        source = _parquet(connection, path, path)
    elif kind == "json":
        source = _json_lines(connection, path, work, sample)
    else:
        source = _csv(path, work, separator, columns, encoding, sample)
    return replace(source, decimal=decimal, nulls=nulls)


def _parquet(connection: duckdb.DuckDBPyConnection, file: Path, path: Path) -> Source:
    relation = f"read_parquet({literal(str(file))}, file_row_number=true)"
    try:
        described = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    except duckdb.Error as error:
        raise ImportFailed(
            f"{path.name} cannot be read as Parquet ({first_line(error)}); is it complete? Copy or export it again"
        ) from None
    types = {name: kind for name, kind, *_ in described if name != "file_row_number"}
    numbered = f"(SELECT * EXCLUDE (file_row_number), file_row_number + 1 AS {identifier(ROW)} FROM {relation})"
    return Source(path=path, kind="parquet", relation=numbered, types=types)


def _csv(
    path: Path, work: Path, separator: str | None, columns: Sequence[str], encoding: str | None, sample: bool
) -> Source:
    file, head = as_duckdb_reads_it(path, encoding, work / f"{_digest(path)}.txt", sample=sample)
    lines = [line for line in head.splitlines() if line.strip()]
    told = _TOLD_SEPARATOR.fullmatch(lines[0]) if lines else None
    if told:
        separator, lines = separator or told[1], lines[1:]
    if not lines:
        raise ImportFailed(f"{path.name} has no rows; export it again")
    first = lines[0]
    separator = separator or max(",;\t|", key=first.count)
    names = list(columns) or [
        name.strip() or f"column{number}"
        for number, name in enumerate(next(csv.reader([first], delimiter=separator[0])), 1)
    ]
    if bad := [name for name in names if "\x00" in name]:
        raise ImportFailed(f"{path.name}: the name of column {bad[0]!r} holds the character NUL; rename it")
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ImportFailed(f"{path.name} has several columns called {', '.join(map(repr, repeated))}; rename them")
    typed = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
    quote = literal("" if len(separator) > 1 else '"')  # multi-character separators come from files without quoting
    relation = (
        f"read_csv({literal(str(file))}, auto_detect=false, delim={literal(separator)}, quote={quote}, escape={quote}, "
        f"header={str(not columns).lower()}, columns={{{typed}}}, skip={int(bool(told))}, {_kept_faults(path)})"
    )
    numbered = f"(SELECT *, row_number() OVER () AS {identifier(ROW)} FROM {relation})"
    types = dict.fromkeys(names, "VARCHAR")
    return Source(path=path, kind="csv", relation=numbered, types=types, separator=separator, faults=_faults(path))


def _json_lines(connection: duckdb.DuckDBPyConnection, path: Path, work: Path, sample: bool) -> Source:
    file, _ = as_duckdb_reads_it(path, "utf-8", work / f"{_digest(path)}.txt", sample=sample)
    relation = (
        f"read_csv({literal(str(file))}, auto_detect=false, delim='\x01', quote='', escape='', header=false, "
        f"columns={{{literal(LINE)}: 'VARCHAR'}}, {_kept_faults(path)})"
    )
    numbered = f"(SELECT *, row_number() OVER () AS {identifier(ROW)} FROM {relation})"
    valid = f"(SELECT {ROW}, CASE WHEN json_valid({LINE}) THEN {LINE} END AS {LINE}, {LINE} AS __text FROM {numbered})"
    try:
        names = _keys(connection, f"{valid} LIMIT {_SAMPLE_LINES}" if sample else valid)
    except duckdb.Error as error:
        raise unread(path, error) from None
    if not names:
        raise ImportFailed(
            f"{path.name} has no line that is a JSON object; expected one object a line (JSON lines). An array becomes "
            f"that with: jq -c '.[]' {path.name} > {path.stem}.jsonl"
        )
    return Source(path=path, kind="json", relation=valid, types=dict.fromkeys(names, "VARCHAR"), faults=_faults(path))


def _keys(connection: duckdb.DuckDBPyConnection, relation: str) -> list[str]:
    """Every key of the objects in `__line`, in the order in which they first come."""
    lines = f"SELECT json_keys({LINE}) AS keys, min({ROW}) AS row FROM (SELECT * FROM {relation}) GROUP BY keys"
    places = f"SELECT unnest(keys) AS name, generate_subscripts(keys, 1) AS place, row FROM ({lines})"
    query = f"SELECT name FROM ({places}) GROUP BY name ORDER BY min(row), arg_min(place, row)"
    return [name for (name,) in connection.execute(query).fetchall()]


def _faults(path: Path) -> str:
    return f"faults_{_digest(path)}"


def _digest(path: Path) -> str:
    """What tells the names of this file's tables from those of another's."""
    return hashlib.md5(str(path).encode()).hexdigest()


def _kept_faults(path: Path) -> str:
    table, scans = literal(_faults(path)), literal(f"scan_{_faults(path)}")
    kept = f"store_rejects=true, rejects_table={table}, rejects_scan={scans}, rejects_limit=0"
    return f"max_line_size={_LONGEST_LINE_BYTES}, {kept}"


def unread(path: Path, error: duckdb.Error) -> ImportFailed:
    """What to raise where a file breaks off or is damaged on the way."""
    return ImportFailed(f"{path.name} cannot be read to its end ({first_line(error)}); copy or export it again")
