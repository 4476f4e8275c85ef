"""How answers did: `python -m features report` joins the recorded answers with the events that carry their tokens.

Of the places of a page, those that exploration gave away (`explored_item_ids` of the recorded answer) are told apart.
An impression is an item of a recorded page (an answer without items has none). It is clicked where an event on the
item other than an impression carries the answer's token, and converted where a purchase does, both at most
`ATTRIBUTION_DAYS` after the answer. Intervals are Wilson's, at 95%, with each impression as an independent trial:
items of one page are not quite, so differences near an interval's edge mean less than it says. The newest answers
of a window may still be clicked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final, Literal

import polars as pl
from rich.table import Table
from sqlalchemy import Engine, String, cast, func, select

from features.answers.answers import EXPLORED
from features.database.models import Answer, Event, Item
from features.schema import EventType, Tier
from features.traffic.experiment_report import ExperimentReport, experiment_report, experiments_between
from features.traffic.rate import Rate

ATTRIBUTION_DAYS: Final = 7.0

Dimension = Literal["release", "placement", "tier", "slot"]
DIMENSIONS: Final[tuple[Dimension, ...]] = ("release", "placement", "tier", "slot")
RANKED: Final = "ranked"
EXPLORING: Final = "explored"
"""Values of `slot`: places that an item has by its rank, and those given away so that it can be tried out."""
TIERS: Final = {int(tier): tier.name.lower() for tier in Tier}

_WINDOW_MS: Final = int(ATTRIBUTION_DAYS * 86_400_000)
_CHUNK_ANSWERS: Final = 50_000
_CELL: Final = list(DIMENSIONS)
_EVENTS: Final = {
    "attribution_token": pl.String,
    "item_id": pl.String,
    "event_type": pl.Int32,
    "event_time_ms": pl.Int64,
}
_ANSWERS: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "attribution_token": pl.String,
    "answered_time_ms": pl.Int64,
    "release": pl.Int64,
    "placement": pl.String,
    "tier": pl.Int64,
    "item_ids": pl.String,
    "explored": pl.String,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The figures of one group of answers."""

    dimension: Dimension | Literal["all"]
    value: str
    answers: int
    """Pages with at least one item (of the line's slot)."""
    impressions: int
    clicked: Rate
    converted: Rate
    items_shown: int
    coverage: float
    """Share of the catalogue of now that was shown at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All answers of a window, and each group of them."""

    since_ms: int
    until_ms: int
    catalogue_items: int
    lines: list[Line]
    unknown_token_events: int
    """Events of the window whose token names no recorded answer; in no line."""
    experiments: list[ExperimentReport]
    """The arms of each, side by side, from the window's start to now."""

    def table(self) -> Table:
        """As a person reads it."""
        table = Table(title=f"Answers from {_time(self.since_ms)} to {_time(self.until_ms)}")
        for name in ("", "answers", "impressions", "click-through", "conversion", "items shown", "coverage"):
            table.add_column(name, justify="right" if name else "left")
        dimension = "all"
        for line in self.lines:
            if line.dimension != dimension:
                table.add_section()
                dimension = line.dimension
            table.add_row(
                "all" if line.dimension == "all" else f"{line.dimension} {line.value or '(none)'}",
                f"{line.answers:,}",
                f"{line.impressions:,}",
                str(line.clicked),
                str(line.converted),
                f"{line.items_shown:,}",
                f"{line.coverage:.1%}",
            )
        return table


def report(engine: Engine, since_ms: int, until_ms: int, by: Sequence[Dimension] = DIMENSIONS) -> Report:
    """The figures of the answers in [since, until), in all and by each of the dimensions."""
    events = _token_events(engine, since_ms, until_ms + _WINDOW_MS)
    cells, shown = [], []
    for answers in _answers(engine, since_ms, until_ms):
        for slot in _slots(answers):
            cells.append(_cells(slot, events))
            shown.append(slot.select(*_CELL, item_id="item_ids").explode("item_id").unique())
    with engine.connect() as connection:
        catalogue = pl.Series(connection.scalars(select(Item.item_id).where(Item.deleted.is_(False))), dtype=pl.String)
    lines: list[Line] = []
    if cells:
        figures, items = pl.concat(cells), pl.concat(shown)
        lines = _lines("all", figures, items, catalogue)
        for dimension in by:
            lines += _lines(dimension, figures, items, catalogue)
    return Report(
        since_ms=since_ms,
        until_ms=until_ms,
        catalogue_items=len(catalogue),
        lines=lines,
        unknown_token_events=_unknown_token_events(engine, since_ms, until_ms),
        experiments=[
            experiment_report(engine, name, since_ms) for name in experiments_between(engine, since_ms, until_ms)
        ],
    )


def _lines(
    dimension: Dimension | Literal["all"], figures: pl.DataFrame, items: pl.DataFrame, catalogue: pl.Series
) -> list[Line]:
    group = pl.lit("") if dimension == "all" else pl.col(dimension)
    pages = pl.col("pages" if dimension == "slot" else "answers")
    sums = figures.group_by(group.alias("value")).agg(
        pl.col("impressions", "clicked", "converted").sum(), answers=pages.sum()
    )
    distinct = items.group_by(group.alias("value")).agg(
        items_shown=pl.col("item_id").n_unique(),
        covered=pl.col("item_id").filter(pl.col("item_id").is_in(catalogue)).n_unique(),
    )
    return [
        Line(
            dimension=dimension,
            value=TIERS.get(row["value"], str(row["value"])) if dimension == "tier" else str(row["value"]),
            answers=row["answers"],
            impressions=row["impressions"],
            clicked=Rate.of(row["clicked"], row["impressions"]),
            converted=Rate.of(row["converted"], row["impressions"]),
            items_shown=row["items_shown"],
            coverage=row["covered"] / len(catalogue) if len(catalogue) else 0.0,
        )
        for row in sums.join(distinct, on="value").sort("value").to_dicts()
    ]


def _cells(answers: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """answers, pages, impressions, clicked, converted of each release, placement, tier and slot."""
    acted = (
        answers.join(events, on="attribution_token")
        .filter(
            pl.col("item_ids").list.contains(pl.col("item_id")),
            pl.col("event_time_ms") <= pl.col("answered_time_ms") + _WINDOW_MS,
        )
        .group_by("attribution_token", "item_id")
        .agg(converted=(pl.col("event_type") == int(EventType.PURCHASE)).any())
        .group_by("attribution_token")
        .agg(clicked=pl.len(), converted=pl.col("converted").sum())
    )
    return (
        answers.join(acted, on="attribution_token", how="left")
        .group_by(_CELL)
        .agg(
            answers=pl.col("counts").sum().cast(pl.Int64),
            pages=pl.len().cast(pl.Int64),
            impressions=pl.col("item_ids").list.len().sum().cast(pl.Int64),
            clicked=pl.col("clicked").sum().cast(pl.Int64),
            converted=pl.col("converted").sum().cast(pl.Int64),
        )
    )


def _slots(answers: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The answers with the items of each slot alone; `counts` where the answer is counted, which is once."""
    ranked = pl.col("item_ids").list.set_difference("explored")
    alone = ranked.list.len() == 0
    for slot, items, counts in ((RANKED, ranked, pl.lit(True)), (EXPLORING, pl.col("explored"), alone)):
        part = answers.with_columns(counts=counts, item_ids=items, slot=pl.lit(slot))
        yield part.filter(pl.col("item_ids").list.len() > 0)


def _answers(engine: Engine, since_ms: int, until_ms: int) -> Iterator[pl.DataFrame]:
    """The answers of the window that show something, by the thousand; columns `_ANSWERS`, items as lists."""
    columns = [getattr(Answer, name) for name in _ANSWERS if name not in ("item_ids", "explored")]
    columns += [cast(Answer.item_ids, String), cast(Answer.request[EXPLORED], String)]  # text: polars reads JSON faster
    statement = select(*columns).where(Answer.answered_time_ms >= since_ms, Answer.answered_time_ms < until_ms)
    with engine.connect().execution_options(yield_per=_CHUNK_ANSWERS) as connection:
        for rows in connection.execute(statement).partitions():
            frame = pl.DataFrame([tuple(row) for row in rows], schema=_ANSWERS, orient="row")
            frame = frame.with_columns(
                pl.col("item_ids").str.json_decode(pl.List(pl.String)),
                pl.col("explored").str.json_decode(pl.List(pl.String)).fill_null([]),  # "null" on SQLite
            )
            yield frame.filter(pl.col("item_ids").list.len() > 0)


def _token_events(engine: Engine, since_ms: int, until_ms: int) -> pl.DataFrame:
    """What shoppers did upon an answer, columns `_EVENTS`."""
    statement = select(*(getattr(Event, name) for name in _EVENTS)).where(
        Event.attribution_token.is_not(None),
        Event.item_id.is_not(None),
        Event.event_type != int(EventType.IMPRESSION),
        Event.event_time_ms >= since_ms,
        Event.event_time_ms <= until_ms,
    )
    with engine.connect() as connection:
        rows = connection.execute(statement).fetchall()
    return pl.DataFrame([tuple(row) for row in rows], schema=_EVENTS, orient="row")


def _unknown_token_events(engine: Engine, since_ms: int, until_ms: int) -> int:
    known = select(Answer.attribution_token).where(Answer.attribution_token == Event.attribution_token).exists()
    statement = select(func.count()).where(
        Event.attribution_token.is_not(None), Event.event_time_ms >= since_ms, Event.event_time_ms < until_ms, ~known
    )
    with engine.connect() as connection:
        return connection.scalar(statement) or 0


def _time(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, timezone.utc):%Y-%m-%d %H:%M} UTC"
