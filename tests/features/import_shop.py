"""A small shop to import into: files written by a test, and what is in the databases afterwards."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import polars as pl
import yaml

from features.database.engine import open_database
from features.importing.importer import import_files
from features.importing.report import Report, Section
from features.log.event_log import EVENT_COLUMNS, EventLog
from features.settings import Settings
from features.shop.catalogue import Catalogue
from features.shop.users import Users

PLAIN = {
    "events": {
        "type": {"column": "what"},
        "user": "who",
        "item": "thing",
        "time": {"column": "when"},
        "quantity": "pieces?",
        "price": "price?",
    }
}
"""A mapping for CSV files with the columns what, who, thing, when and perhaps pieces and price."""


@dataclass(frozen=True, slots=True)
class Shop:
    """A shop's settings and the folder in which a test writes its files."""

    settings: Settings
    folder: Path

    def write(self, name: str, text: str, encoding: str = "utf-8") -> Path:
        """A text file."""
        path = self.folder / name
        path.write_bytes(text.encode(encoding))
        return path

    def mapping(self, mapping: object = PLAIN, name: str = "own.yaml") -> str:
        """A mapping file; returns what goes behind `--mapping`."""
        return str(self.write(name, yaml.safe_dump(mapping)))

    def load(self, file: Path, mapping: str | None = None, **options: object) -> Report:
        """Runs the import."""
        return import_files(self.settings, file, mapping=mapping, **options)  # type: ignore[arg-type]

    def load_rows(self, rows: Sequence[str], mapping: object = PLAIN, header: str = "what,who,thing,when") -> Section:
        """Imports CSV lines with a mapping of their own; returns the events' section of the report."""
        file = self.write("rows.csv", "\n".join([header, *rows]) + "\n")
        return self.load(file, self.mapping(mapping)).sections[0]

    def events(self) -> pl.DataFrame:
        """The whole log."""
        engine = open_database(self.settings.log_url)
        try:
            return pl.concat([pl.DataFrame(schema=EVENT_COLUMNS), *EventLog(engine).scan()])
        finally:
            engine.dispose()

    def items(self) -> pl.DataFrame:
        """The catalogue."""
        engine = open_database(self.settings.log_url)
        try:
            return Catalogue(engine).frame()
        finally:
            engine.dispose()

    def revision(self) -> int:
        """The catalogue's revision."""
        engine = open_database(self.settings.log_url)
        try:
            return Catalogue(engine).revision()
        finally:
            engine.dispose()

    def users(self) -> pl.DataFrame:
        """The users."""
        engine = open_database(self.settings.log_url)
        try:
            return Users(engine).frame()
        finally:
            engine.dispose()


def rejected(section: Section) -> pl.DataFrame:
    """The rejected rows of a report's section."""
    assert section.rejected_file is not None
    return pl.read_parquet(section.rejected_file)


def write_excel(
    path: Path, rows: Sequence[Sequence[object]], *more: Sequence[Sequence[object]], date_columns: Sequence[int] = ()
) -> Path:
    """The smallest workbook that Excel opens: Sheet1, and of `more` Sheet2 and so on.

    Numbers in `date_columns` are days since 1899-12-30.
    """

    def cell(column: int, value: object) -> str:
        if value is None:
            return "<c/>"
        if isinstance(value, str):
            return f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>'
        return f'<c s="{int(column in date_columns)}"><v>{value}</v></c>'

    office = "http://schemas.openxmlformats.org"
    kinds = f"{office}/officeDocument/2006/relationships"
    sheets = f'xmlns="{office}/spreadsheetml/2006/main"'
    content = "application/vnd.openxmlformats-officedocument.spreadsheetml"

    def lines(rows: Sequence[Sequence[object]]) -> str:
        return "".join(f"<row>{''.join(cell(i, value) for i, value in enumerate(row))}</row>" for row in rows)

    numbers = range(1, len(more) + 2)
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{office}/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{content}.sheet.main+xml"/>'
        + "".join(
            f'<Override PartName="/xl/worksheets/sheet{n}.xml" ContentType="{content}.worksheet+xml"/>' for n in numbers
        )
        + f'<Override PartName="/xl/styles.xml" ContentType="{content}.styles+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{office}/package/2006/relationships">'
        f'<Relationship Id="rId1" Type="{kinds}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook {sheets} xmlns:r="{kinds}"><sheets>'
        + "".join(f'<sheet name="Sheet{n}" sheetId="{n}" r:id="rId{n}"/>' for n in numbers)
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{office}/package/2006/relationships">'
        + "".join(
            f'<Relationship Id="rId{n}" Type="{kinds}/worksheet" Target="worksheets/sheet{n}.xml"/>' for n in numbers
        )
        + f'<Relationship Id="rId{len(numbers) + 1}" Type="{kinds}/styles" Target="styles.xml"/></Relationships>',
        "xl/styles.xml": f'<styleSheet {sheets}><cellXfs count="2"><xf numFmtId="0"/>'
        '<xf numFmtId="22" applyNumberFormat="1"/></cellXfs></styleSheet>',
    } | {
        f"xl/worksheets/sheet{n}.xml": f"<worksheet {sheets}><sheetData>{lines(sheet)}</sheetData></worksheet>"
        for n, sheet in enumerate((rows, *more), 1)
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, '<?xml version="1.0" encoding="UTF-8"?>' + text)
    return path
