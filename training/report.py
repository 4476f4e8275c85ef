"""Figures as a table for the terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table
from rich.text import Text

Figures = Mapping[str, Mapping[str, float]]
"""Model name to its figures by name."""

COLUMNS = {
    "recall@10": "Recall@10",
    "ndcg@10": "NDCG@10",
    "repeat_ndcg@10": "NDCG@10 repeat",
    "explore_ndcg@10": "NDCG@10 explore",
}


def figures_table(figures: Figures, title: str) -> Table:
    """A rich table, the best of each column in bold."""
    table = Table("model", title=title, title_justify="left")
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right")
    best = {name: max((row[name] for row in figures.values() if name in row), default=None) for name in COLUMNS}
    for label, row in figures.items():
        cells = [Text(_text(row, name), style="bold" if row.get(name) == best[name] else "") for name in COLUMNS]
        table.add_row(label, *cells)
    return table


def figures_markdown(figures: Figures) -> str:
    """The same as a Markdown table."""
    lines = [
        f"| model | {' | '.join(COLUMNS.values())} |",
        f"| --- |{' ---: |' * len(COLUMNS)}",
        *[f"| {label} | {' | '.join(_text(row, name) for name in COLUMNS)} |" for label, row in figures.items()],
    ]
    return "\n".join(lines) + "\n"


def write_figures(folder: Path, figures: Figures) -> None:
    """Writes `evaluation.md` and `evaluation.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.md").write_text(figures_markdown(figures))
    (folder / "evaluation.json").write_text(json.dumps(figures, indent=2))


def _text(row: Mapping[str, float], name: str) -> str:
    return f"{row[name]:.4f}" if name in row else "-"
