"""What an import did: rows read, stored and rejected by rule, as a table for people and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from features.importing.cleaning import RULES
from features.importing.describing import ID_RULES


@dataclass(slots=True, kw_only=True)
class Section:
    """One kind of thing: events, items or users."""

    what: str
    files: list[str]
    rows: int = 0
    new: int = 0
    changed: int = 0
    already_stored: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    adjusted: dict[str, int] = field(default_factory=dict)
    rejected_file: str | None = None


@dataclass(slots=True, kw_only=True)
class Report:
    """The whole import."""

    mapping: str
    started_time: str
    seconds: float = 0.0
    rows_per_second: float = 0.0
    peak_memory_bytes: int = 0
    sections: list[Section] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was left out as a whole, and what to do."""

    def write(self, file: Path) -> None:
        """As JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def show(self, console: Console) -> None:
        """As a table, a line for each rule that took rows."""
        table = Table(title=f"Import with the mapping {self.mapping}", title_justify="left")
        for name, justify in (("", "left"), ("rows", "right"), ("share", "right"), ("what it means", "left")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        for section in self.sections:
            _add(table, section)
        console.print(table)
        for section in self.sections:
            if section.rejected_file:
                console.print(f"rejected rows of {section.what}, with reasons: {section.rejected_file}", soft_wrap=True)
        for note in self.notes:
            console.print(f"note: {note}", style="yellow", soft_wrap=True)
        console.print(f"{self.rows_per_second:,.0f} events/s, {self.seconds:.1f} s in all", highlight=False)


def _add(table: Table, section: Section) -> None:
    def line(name: str, rows: int, meaning: str, style: str = "") -> None:
        share = f"{rows / section.rows:.1%}" if section.rows else ""
        table.add_row(name, f"{rows:,}", share, meaning, style=style)

    line(section.what, section.rows, f"read from {', '.join(section.files)}", "bold")
    line("  new", section.new, "stored now", "green")
    if section.changed:
        line("  changed", section.changed, "stored now, in place of what was there", "green")
    if section.already_stored:
        line("  already stored", section.already_stored, "left as it is")
    rules = RULES if section.what == "events" else ID_RULES
    for name, meaning in rules.items():
        if rows := section.rejected.get(name):
            line(f"  {name}", rows, f"rejected: {meaning}", "yellow")
    for name, rows in sorted(section.adjusted.items()):
        line("  adjusted", rows, name, "yellow")
    table.add_section()
