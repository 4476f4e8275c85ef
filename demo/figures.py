"""The story's numbers: how fast the gateway answers, and how good the release is beside simple methods."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from demo.storefront import Storefront
from features.schema import FUSION_MODEL, MANIFEST_FILE
from features.settings import Settings

WARM_UP = 20
FIGURES = {
    "ndcg@10": "NDCG@10",
    "recall@10": "Recall@10",
    "repeat_ndcg@10": "repeats",
    "explore_ndcg@10": "new to them",
}


def latency(console: Console, storefront: Storefront, user_ids: Sequence[str]) -> None:
    """Asks for every user once, one call at a time, and prints median and p95 in milliseconds."""
    for user_id in user_ids[:WARM_UP]:
        storefront.recommend(user_id, 10)
    taken_ms = []
    for user_id in track(user_ids, "asking for other shoppers", console=console, transient=True):
        begin = time.perf_counter()
        storefront.recommend(user_id, 10)
        taken_ms.append((time.perf_counter() - begin) * 1000)
    median, p95 = np.quantile(taken_ms, [0.5, 0.95])
    console.print(
        f"{len(taken_ms)} Recommend calls for as many shoppers, one after the other: "
        f"[bold]median {median:.1f} ms[/bold], p95 {p95:.1f} ms, from call to answer."
    )


def evaluation(console: Console, settings: Settings, release: int, truth: Path | None) -> None:
    """Prints the release's offline figures beside the baselines', on what came after its training data.

    Args:
        truth: folder of a simulated shop; its oracle is measured on the same span of time.
    """
    path = settings.model_repository / FUSION_MODEL / str(release) / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    metrics: Mapping[str, float] = manifest["metrics"]
    if "ndcg@10" not in metrics:
        console.print("[dim]This release was published without an evaluation.[/dim]")
        return
    baselines: Mapping[str, Mapping[str, float]] = manifest["baselines"]
    rows: list[tuple[str, Mapping[str, float]]] = [("[bold]Braid[/bold]", metrics)]
    rows += sorted(baselines.items(), key=lambda row: -row[1].get("ndcg@10", 0.0))
    window = manifest["data_window"]
    oracle = None
    if truth is not None and "test_from" in window:
        oracle = oracle_ndcg(truth, window)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    for title in FIGURES.values():
        table.add_column(title, justify="right")
    for name, figures in rows:
        table.add_row(name, *(_number(figures.get(figure)) for figure in FIGURES))
    if oracle is not None:
        table.add_row("[dim]an oracle that knows the truth[/dim]", _number(oracle), "", "", "")
    of = window.get("targets", "purchases")
    moments = f"{metrics['moments']:,.0f} {of[:-1]} moments" if "moments" in metrics else of
    console.print(f"Next {of}, ranked over all items, on {moments} from {window.get('test_from', '')[:10]} on:")
    console.print(table)
    _verdict(console, metrics["ndcg@10"], baselines, oracle)


def oracle_ndcg(truth: Path, window: Mapping[str, Any]) -> float | None:
    """NDCG@10 of the simulation's oracle over the window's test span, a mean over shoppers; None if not known."""
    from demo.oracle import Oracle, ndcg

    try:
        oracle = Oracle(truth)
    except ValueError:
        return None  # the shop stands since before the simulation changed: its dice are not known any more
    begin_ms, end_ms = (datetime.fromisoformat(window[name]).timestamp() * 1000 for name in ("test_from", "to"))
    visits = oracle.buying_visits()
    visits = visits.filter(visits["decision_ms"].is_between(int(begin_ms), int(end_ms)))
    if visits.height > 4_000:
        visits = visits.sample(4_000, seed=7)
    if not visits.height:
        return None
    figures = ndcg(oracle.scores(visits), visits["bought"].to_list())
    means = visits.select("user_id").with_columns(figure=figures).group_by("user_id").mean()
    return float(means["figure"].to_numpy().mean())


def _verdict(console: Console, own: float, baselines: Mapping[str, Mapping[str, float]], oracle: float | None) -> None:
    parts = []
    if baselines:
        best = max(baselines, key=lambda name: baselines[name].get("ndcg@10", 0.0))
        figure = baselines[best].get("ndcg@10", 0.0)
        if figure > 0:
            parts.append(f"{own / figure:.2f} times the best simple method ({best})")
    if oracle:
        parts.append(f"{own / oracle:.0%} of what knowing the truth would reach")
    if parts:
        console.print(f"NDCG@10: {', '.join(parts)}.")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
