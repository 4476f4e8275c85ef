"""Writes a simulated shop: `python -m demo simulate --out DIR`.

    DIR/events.parquet items.parquet users.parquet     what a shop would export
    DIR/truth/*.parquet shop.json                      what only the simulation knows: see `demo.oracle`

Shoppers come in chunks, each seeded by itself, and spill to disk; the log is then merged day by day, so memory does
not grow with the size of the shop.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from datetime import date, datetime, timezone
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from demo.catalogue import Catalogue, item_ids, make_catalogue
from demo.choice import Chooser
from demo.events import Happened, log_rows, make_events
from demo.noise import bots, spoil
from demo.shoppers import Shoppers, make_shoppers
from demo.visits import DAY_MS, Needs, Visits, make_needs, make_visits

CHUNK = 4_000
MERGE_ROWS = 500_000
EVENT_COLUMNS = {
    "event_id": pl.String(),
    "event_type": pl.String(),
    "user_id": pl.String(),
    "session_id": pl.String(),
    "item_id": pl.String(),
    "event_time": pl.Datetime("us", "UTC"),
    "quantity": pl.Float64(),
    "price": pl.Float64(),
    "order_id": pl.String(),
    "query": pl.String(),
    "attribution_token": pl.String(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopPlan:
    """How large the shop is and how it behaves; the same plan gives the same files."""

    shoppers: int = 4_000
    items: int = 2_000
    days: int = 120
    end: date = date(2026, 6, 1)
    seed: int = 1
    intents: bool = True
    noise: bool = True

    def __post_init__(self) -> None:
        limits = {"shoppers": (1, 100_000_000), "items": (1, 1_000_000), "days": (7, 3_650)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be {low} to {high}, not {getattr(self, name)}")

    @property
    def start_ms(self) -> int:
        """The first moment of the simulation."""
        end = datetime(self.end.year, self.end.month, self.end.day, tzinfo=timezone.utc)
        return int(end.timestamp() * 1000) - self.days * DAY_MS


def simulate(plan: ShopPlan, out: Path) -> dict[str, int]:
    """Writes the shop under `out` and returns the counts of events, items, shoppers and visits."""
    truth, spill = out / "truth", out / "spill"
    for folder in (truth, spill):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    catalogue = make_catalogue(plan.seed, plan.items, plan.days)
    catalogue.frame(plan.start_ms).write_parquet(out / "items.parquet")
    _write_item_truth(catalogue, truth)
    prices = catalogue.texts["price"].to_numpy()
    first_visit = 0
    with _Tables(out, truth) as tables:
        for first in range(0, plan.shoppers, CHUNK):
            shoppers = make_shoppers(plan.seed, first, min(CHUNK, plan.shoppers - first), plan.days)
            chooser = Chooser(catalogue, shoppers, plan.days, plan.start_ms // DAY_MS % 365)
            rng = np.random.default_rng([plan.seed, 4, first])
            needs = make_needs(rng, chooser, plan.days)
            visits = make_visits(rng, chooser, needs, plan.days, plan.start_ms, intents=plan.intents)
            happened = make_events(rng, chooser, visits, needs)
            rows = _finish(log_rows(rng, chooser, visits, happened, first_visit, prices), catalogue)
            rows = spoil(rng, rows) if plan.noise else rows
            rows.sort("event_time", "event_id").write_parquet(
                spill / f"{first:09d}.parquet", compression="zstd", row_group_size=50_000
            )
            tables.write("users", shoppers.frame())
            tables.write("truth_shoppers", _shopper_truth(shoppers))
            tables.write("truth_needs", _need_truth(shoppers, needs))
            tables.write("truth_visits", _visit_truth(shoppers, visits, happened, first_visit))
            first_visit += visits.shopper.size
    if plan.noise:
        robots = bots(plan.seed, 2 + plan.shoppers // 2_000, plan.items, plan.days, plan.start_ms)
        _finish(robots, catalogue).sort("event_time").write_parquet(spill / "robots.parquet")
    events = _merge(plan, spill, out / "events.parquet")
    shutil.rmtree(spill)
    counts = {"events": events, "items": plan.items, "shoppers": plan.shoppers, "visits": first_visit}
    facts = asdict(plan) | {"end": plan.end.isoformat(), "start_ms": plan.start_ms, "counts": counts}
    (truth / "shop.json").write_text(json.dumps(facts, indent=1))
    return counts


class _Tables:
    """The Parquet files that grow with the shoppers, one row group a chunk."""

    def __init__(self, out: Path, truth: Path) -> None:
        self._paths = {
            "users": out / "users.parquet",
            **{f"truth_{name}": truth / f"{name}.parquet" for name in ("shoppers", "needs", "visits")},
        }
        self._writers: dict[str, pq.ParquetWriter] = {}

    def __enter__(self) -> _Tables:
        return self

    def write(self, name: str, frame: pl.DataFrame) -> None:
        table = frame.to_arrow()
        if name not in self._writers:
            self._writers[name] = pq.ParquetWriter(self._paths[name], table.schema, compression="zstd")
        self._writers[name].write_table(table)

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():
            writer.close()


def _finish(rows: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """Item ids for indices, timestamps for milliseconds, the columns of the export."""
    missing = [pl.lit(None, kind).alias(name) for name, kind in EVENT_COLUMNS.items() if name not in rows.columns]
    return (
        rows.with_columns(
            item_id=item_ids(catalogue.size).gather(rows["item"]),
            event_time=(pl.col("time_ms") * 1000).cast(pl.Datetime("us", "UTC")),
        )
        .with_columns(col for col in missing if col.meta.output_name() not in ("item_id", "event_time"))
        .select(pl.col(name).cast(kind) for name, kind in EVENT_COLUMNS.items())
    )


def _merge(plan: ShopPlan, spill: Path, path: Path) -> int:
    """One file in the order of time, read in spans of time that hold about `MERGE_ROWS` rows."""
    schema = pl.DataFrame(schema=EVENT_COLUMNS).to_arrow().schema
    scan = pl.scan_parquet(spill / "*.parquet")
    rows = int(scan.select(pl.len()).collect().item())
    step_ms = max(60_000, int(plan.days * DAY_MS * MERGE_ROWS / max(rows, MERGE_ROWS)))
    # A visit that begins shortly before or after the simulation's days reaches beyond them.
    begin_ms, end_ms = plan.start_ms - DAY_MS, plan.start_ms + (plan.days + 2) * DAY_MS
    written = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for low_ms in range(begin_ms, end_ms, step_ms):
            low, high = (pl.lit(ms * 1000).cast(pl.Datetime("us", "UTC")) for ms in (low_ms, low_ms + step_ms))
            part = scan.filter(pl.col("event_time") >= low, pl.col("event_time") < high).collect()
            if part.height:
                writer.write_table(part.sort("event_time", "event_id").to_arrow().cast(schema), row_group_size=250_000)
            written += part.height
    assert written == rows, (written, rows)
    return rows


def _write_item_truth(catalogue: Catalogue, truth: Path) -> None:
    ids = item_ids(catalogue.size)
    pl.DataFrame(
        {
            "item_id": ids,
            "occasion": catalogue.occasion,
            "occasion_name": pl.Series(catalogue.occasions.names).gather(catalogue.occasion),
            "style": catalogue.style,
        }
    ).write_parquet(truth / "items.parquet")


def _shopper_truth(shoppers: Shoppers) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": shoppers.ids(),
            "taste": shoppers.taste,
            "interest": shoppers.interest,
            "joined_day": shoppers.joined,
            "left_day": shoppers.left,
        }
    )


def _need_truth(shoppers: Shoppers, needs: Needs) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": shoppers.ids().gather(needs.shopper),
            "item": needs.item,
            "interval_days": needs.interval_days,
        }
    )


def _visit_truth(shoppers: Shoppers, visits: Visits, happened: Happened, first_visit: int) -> pl.DataFrame:
    """One row a visit: who, when, with which intent, what was looked at and bought (item indices)."""
    count = visits.shopper.size
    frame = pl.DataFrame(
        {
            "visit": np.arange(count),
            "user_id": shoppers.ids().gather(visits.shopper),
            "shopper": visits.shopper + shoppers.first,
            "day": visits.day,
            "start_ms": visits.start_ms,
            "decision_ms": happened.decision_ms,
            "has_intent": visits.intent >= 0,
            "intent": visits.intent,
            "forced_by_need": visits.forced,
        }
    )
    for name, draws in (("viewed", happened.views), ("bought", happened.bought)):
        lists = pl.DataFrame({"visit": draws.visit, name: draws.item}).group_by("visit", maintain_order=True).agg(name)
        frame = frame.join(lists, on="visit", how="left", maintain_order="left")
    return frame.with_columns(
        pl.col("visit") + first_visit,
        pl.col("viewed", "bought").fill_null(pl.lit([], pl.List(pl.Int64))),
        session_id=pl.format("session-{}", pl.col("visit") + first_visit),
    )
