"""An Excel workbook as one table: its first sheet, and behind it the rows of every other one with the same columns.

A sheet holds a million rows, so that larger exports go on in the next sheet, and ledgers have a sheet for each year.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import fastexcel
import polars as pl

from features.importing.errors import ImportFailed, first_line

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
        first, *others = reader.sheet_names
        sheets = [_load(reader, first, rows)]
        if rows is None:
            sheets += [sheet for name in others if (sheet := _load(reader, name)).visible == "visible"]
        frames = {sheet.name: pl.DataFrame(sheet) for sheet in sheets}
        columns = frames[first].columns
        same = [name for name, frame in frames.items() if set(frame.columns) == set(columns)]
        if texts := _of_several_types([frames[name] for name in same]):  # the cell's own text: 536365 and not 536365.0
            frames |= {name: pl.DataFrame(_load(reader, name, texts=texts)) for name in same}
    except (fastexcel.FastExcelError, OSError) as error:
        raise ImportFailed(
            f"{path.name} cannot be read as Excel ({first_line(error)}); is it complete? Save it again as .xlsx"
        ) from None
    if not frames[first].height:
        raise ImportFailed(f"{path.name}: the first sheet has no rows of data")
    left_out = tuple(name for name, frame in frames.items() if name not in same and frame.height)
    return pl.concat([frames[name].select(columns) for name in same], how="vertical_relaxed"), left_out


def _load(
    reader: fastexcel.ExcelReader, name: str, rows: int | None = None, texts: frozenset[str] = frozenset()
) -> fastexcel.ExcelSheet:
    types: dict[str | int, fastexcel.DType] = dict.fromkeys(texts, "string")
    return reader.load_sheet(name, n_rows=rows, schema_sample_rows=None, dtypes=types or None)


def _of_several_types(frames: list[pl.DataFrame]) -> frozenset[str]:
    """Columns that are not numbers, or not times, in every sheet."""
    types = {name: {frame.schema[name] for frame in frames} - {pl.Null} for name in frames[0].columns}
    return frozenset(name for name, found in types.items() if len(found) > 1 and not found <= _NUMBERS)
