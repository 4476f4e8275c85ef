"""Finds the ready mapping that fits a file, by trying each on the file's first rows."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import duckdb

from features.importing.cleaning import canonical_rows
from features.importing.errors import ImportFailed, first_line
from features.importing.events import open_workspace
from features.importing.mapping import Mapping, load, ready_names
from features.importing.source import Source, open_source

_ROWS: Final = 500
_FOREIGN: Final = (
    "missing_item",
    "missing_time",
    "missing_type",
    "unknown_type",
    "unreadable_time",
    "unreadable_number",
)
"""Reasons that say that the mapping is not meant for this file; others are ordinary dirt."""


def fitting(path: Path) -> Mapping:
    """The first ready mapping that fits a file: its columns are there and most of its first rows can be read.

    Raises:
        ImportFailed: the file cannot be read, or none fits.
    """
    mappings = sorted((load(name) for name in ready_names()), key=lambda mapping: bool(mapping.events.columns))
    with tempfile.TemporaryDirectory() as work:
        connection = open_workspace(Path(work), None)
        try:
            source = open_source(connection, path, Path(work), sample=True)
            for mapping in mappings:
                if _fits(connection, path, Path(work), mapping):
                    return mapping
        except duckdb.Error as error:
            raise ImportFailed(f"{path.name} cannot be read: {first_line(error)}; copy or export it again") from None
        finally:
            connection.close()
    raise ImportFailed(
        f"{path.name}: no ready mapping fits its columns ({_listed(source)}); "
        f"write a mapping file and give it with --mapping FILE.yaml (ready ones: {', '.join(m.name for m in mappings)})"
    )


def _fits(connection: duckdb.DuckDBPyConnection, path: Path, work: Path, mapping: Mapping) -> bool:
    try:
        source = open_source(connection, path, work, sample=True, **mapping.events.options)
        query = f"SELECT reason FROM ({canonical_rows(connection, source, mapping)}) LIMIT {_ROWS}"
        reasons = [reason for (reason,) in connection.execute(query).fetchall()]
    except ImportFailed:
        return False  # a mapping for other columns
    foreign = sum(reason in _FOREIGN for reason in reasons)
    return bool(reasons) and foreign * 2 < len(reasons)


def _listed(source: Source) -> str:
    return ", ".join(list(source.types)[:30])
