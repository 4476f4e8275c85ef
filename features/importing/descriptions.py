"""Items and users on their way: rows are read into a table on disk, and streamed out, the last of each id.

Lines that cannot be taken apart are found out in reading: what a stray quotation mark had swallowed is read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from features.importing.describing import rows_of_events, rows_of_files
from features.importing.lines import without_lost_lines
from features.importing.mapping import ItemsMapping, UsersMapping
from features.importing.source import Source, literal, unread
from features.schema import MAX_ID_CHARS

BATCH_ROWS: Final = 10_000

_REASON: Final = (
    f"CASE WHEN id IS NULL THEN 'missing_id' WHEN length(id) > {MAX_ID_CHARS} THEN 'too_long' "
    "WHEN contains(id, chr(0)) THEN 'nul_character' "
    "WHEN row_number() OVER (PARTITION BY id ORDER BY file DESC, row DESC) > 1 THEN 'overwritten' END"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Items or users (`what`) that an import reads: from `sources`, or out of the event file where there are none."""

    what: str
    mapping: ItemsMapping | UsersMapping
    sources: Sequence[Source]

    def query(self, connection: duckdb.DuckDBPyConnection, events: Source, sources: Sequence[Source]) -> str:
        """The SELECT of `features.importing.describing`.

        Raises:
            ImportFailed: a column is missing, or its type cannot serve.
        """
        if not sources:
            return rows_of_events(events, self.mapping)
        return rows_of_files(connection, sources, self.mapping)

    def stage(self, connection: duckdb.DuckDBPyConnection, events: Source) -> None:
        """Fills the table `described_<what>` (each row and the rule that it breaks), and each source's table `lost`.

        Args:
            events: as `features.importing.events.stage` returns it.

        Raises:
            ImportFailed: a file cannot be read to its end.
        """
        try:
            self._fill(connection, self.query(connection, events, self.sources))
        except duckdb.Error as error:
            raise unread((*self.sources, events)[0].path, error) from None
        settled = [without_lost_lines(connection, source) for source in self.sources]
        if settled != list(self.sources):
            self._fill(connection, self.query(connection, events, settled))

    def counts(self, connection: duckdb.DuckDBPyConnection) -> tuple[int, dict[str, int]]:
        """Rows read, and rows rejected by rule; a line that could not be taken apart is one too."""
        groups = connection.execute(f"SELECT reason, count(*) FROM ({self._all_rows}) GROUP BY reason").fetchall()
        return sum(count for _, count in groups), {reason: count for reason, count in groups if reason}

    def write_rejected(self, connection: duckdb.DuckDBPyConnection, file: Path) -> None:
        """The rejected rows as Parquet: `file` and `row` in it, both counted, `reason`, and what was read.

        Of a line that could not be taken apart: its number in the file as `line`, and its text as `line_text`.
        """
        query = f"SELECT * FROM ({self._all_rows}) WHERE reason IS NOT NULL ORDER BY file, row"
        connection.execute(f"COPY ({query}) TO {literal(str(file))} (FORMAT parquet)").fetchall()

    def good_rows(self, connection: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
        """The rows without a fault, by id."""
        query = f"SELECT * FROM {self._table} WHERE reason IS NULL ORDER BY id"
        yield from connection.sql(query).to_arrow_reader(BATCH_ROWS)

    @property
    def _table(self) -> str:
        return f"described_{self.what}"

    @property
    def _all_rows(self) -> str:
        """The SELECT of the table's rows and of the lines that could not be taken apart."""
        lost = [
            f"SELECT {number} AS file, line, line_text, 'unreadable_line' AS reason FROM {source.lost}"
            for number, source in enumerate(self.sources)
        ]
        return " UNION ALL BY NAME ".join([f"SELECT * FROM {self._table}", *lost])

    def _fill(self, connection: duckdb.DuckDBPyConnection, query: str) -> None:
        create = f"CREATE OR REPLACE TEMP TABLE {self._table} AS SELECT *, {_REASON} AS reason FROM ({query})"
        connection.execute(create).fetchall()
