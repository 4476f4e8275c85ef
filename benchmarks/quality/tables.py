"""What a run found, as tables for the terminal and for Markdown, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.quality.figures import GROUPS
from benchmarks.quality.measured import Comparison, Measured
from benchmarks.quality.task import Task
from benchmarks.record import machine
from benchmarks.table import Table


def tables(task: Task, measured: Sequence[Measured], compared: Sequence[Comparison]) -> list[Table]:
    """Accuracy, accuracy of parts, lists and cost, comparisons; a table without a row is left out."""
    first, second = task.headline
    accuracy = {name: name for name in (first, second, "hr@10", "ndcg@10", "mrr@10", "ndcg@20")}
    parts = {f"{part}_{second}": part for part in ("repeat", "explore", *GROUPS)}
    lists = {name: name for name in ("coverage", "novelty", "diversity", "gini")} | {"calibration_error": "calibration"}
    found = [
        _figures(f"{task.name}: accuracy", measured, accuracy),
        _figures(f"{task.name}: {second} of repeats and of new items, and by events known before", measured, parts),
        _figures(f"{task.name}: the lists", measured, lists),
        Table(
            title=f"{task.name}: cost",
            columns=("model", "fitting s", "ranking s", "parameters", "peak MB", "seeds"),
            rows=tuple(_cost(model) for model in measured),
        ),
        Table(
            title=f"{task.name}: differences of {second}, 95% interval of the paired bootstrap over shoppers",
            columns=("model", "against", "difference", "from", "to", "p"),
            rows=tuple(_comparison(row) for row in compared),
        ),
    ]
    return [table for table in found if table.rows]


def write(folder: Path, task: Task, measured: Sequence[Measured], compared: Sequence[Comparison]) -> None:
    """Writes results.md and results.json."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = ", ".join(f"{count:,} {name}" for name, count in task.sizes().items())
    text = [f"# {task.name}\n\n{sizes}.\n", *(table.markdown() for table in tables(task, measured, compared))]
    (folder / "results.md").write_text("\n".join(text))
    values = {
        "task": task.name,
        "headline": task.headline,
        "sizes": task.sizes(),
        "machine": machine(),
        "models": {
            model.name: {
                "mean": model.mean,
                "deviation": model.deviation,
                "seeds": model.figures,
                "facts": [result.facts for result in model.results],
            }
            for model in measured
        },
        "comparisons": [asdict(row) for row in compared],
    }
    (folder / "results.json").write_text(json.dumps(values, indent=1) + "\n")


def _figures(title: str, measured: Sequence[Measured], headings: Mapping[str, str]) -> Table:
    """One row a model; figures that no model has are left out. headings: by name of the figure."""
    kept = [name for name in headings if any(name in model.mean for model in measured)]
    rows = [(model.name, *(_figure(model, name) for name in kept)) for model in measured]
    return Table(title=title, columns=("model", *(headings[name] for name in kept)), rows=tuple(rows))


def _figure(model: Measured, name: str) -> str:
    if name not in model.mean:
        return "-"
    deviation = f" ±{model.deviation[name]:.4f}" if len(model.results) > 1 else ""
    return f"{model.mean[name]:.4f}{deviation}"


def _cost(model: Measured) -> tuple[str, ...]:
    seconds, ranking, parameters = (model.fact(name) for name in ("seconds", "ranking_seconds", "parameters"))
    peak = model.fact("peak_bytes")
    return (
        model.name,
        "-" if seconds is None else f"{seconds:,.1f}",
        "-" if ranking is None else f"{ranking:,.1f}",
        "-" if parameters is None else f"{parameters:,.0f}",
        "-" if peak is None else f"{peak / 1e6:,.0f}",
        str(len(model.results)),
    )


def _comparison(row: Comparison) -> tuple[str, ...]:
    found = row.difference
    return (row.model, row.other, f"{found.value:+.4f}", f"{found.low:+.4f}", f"{found.high:+.4f}", f"{found.p:.4f}")
