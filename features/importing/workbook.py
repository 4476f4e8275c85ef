"""An Excel workbook as one table: its first sheet, and behind it the rows of every other one with the same columns.

A sheet holds a million rows, so that larger exports go on in the next sheet, and ledgers have a sheet for each year.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import fastexcel
import polars as pl

from features.importing.errors import ImportFailed

_NUMBERS: Final = frozenset({pl.Int64, pl.Float64, pl.Boolean})


def read_workbook(path: Path, rows: int | None) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The rows, and the names of the sheets that were left out: those with other columns. Hidden ones do not count.

    Args:
        rows: so many of the first sheet are enough; None for all of all.

    Raises:
        ImportFailed: it cannot be read, or its first sheet is empty.
    """
    try:
        reader = fastexcel.read_excel(path)
        first = _sheet(reader, reader.sheet_names[0], rows)
        others = (
            {} if rows else {name: _sheet(reader, name) for name in _visible(reader) if name != reader.sheet_names[0]}
        )
        same = [name for name, frame in others.items() if set(frame.columns) == set(first.columns)]
        frames = [first, *(others[name].select(first.columns) for name in same)]
        if texts := _of_several_types(frames):  # the workbook's own text of a cell: 536365 and not 536365.0
            frames = [
                _sheet(reader, name, texts=texts).select(first.columns) for name in (reader.sheet_names[0], *same)
            ]
    except (fastexcel.FastExcelError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ImportFailed(
            f"{path.name} cannot be read as Excel ({reason}); is it complete? Save it again as .xlsx"
        ) from None
    if not first.height:
        raise ImportFailed(f"{path.name}: the first sheet has no rows of data")
    left_out = tuple(name for name, frame in others.items() if name not in same and frame.height)
    return pl.concat(frames, how="vertical_relaxed"), left_out


def _sheet(
    reader: fastexcel.ExcelReader, name: str, rows: int | None = None, texts: frozenset[str] = frozenset()
) -> pl.DataFrame:
    types: dict[str | int, fastexcel.DType] = dict.fromkeys(texts, "string")
    return pl.DataFrame(reader.load_sheet(name, n_rows=rows, schema_sample_rows=None, dtypes=types or None))


def _visible(reader: fastexcel.ExcelReader) -> list[str]:
    return [name for name in reader.sheet_names if reader.load_sheet(name, n_rows=0).visible == "visible"]


def _of_several_types(frames: list[pl.DataFrame]) -> frozenset[str]:
    """Columns that are not numbers, or not times, in every sheet."""
    types = {name: {frame.schema[name] for frame in frames} - {pl.Null} for name in frames[0].columns}
    return frozenset(name for name, found in types.items() if len(found) > 1 and not found <= _NUMBERS)
