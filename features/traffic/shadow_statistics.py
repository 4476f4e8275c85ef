"""How a shadow's pages differ from those that were given, summed in the table `shadow_statistics` by every process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from sqlalchemy import Engine, select

from features.database.engine import insert_into
from features.database.models import ShadowStatistic

Key = tuple[str, int, int]
"""Experiment, shadow, and the release that answered."""


@dataclass(slots=True)
class Disagreement:
    """Sums over copies; the fields are the columns of the table."""

    compared: int = 0
    failed: int = 0
    dropped: int = 0
    overlap: float = 0.0
    correlation: float = 0.0
    correlated: int = 0
    score_difference: float = 0.0
    scored: int = 0
    release_ms: float = 0.0
    shadow_ms: float = 0.0

    def compare(
        self, given: Sequence[str], given_scores: Sequence[float], shadow: Sequence[str], shadow_scores: Sequence[float]
    ) -> float:
        """Adds two pages; returns the share of the given one that the shadow has too."""
        places = {item_id: place for place, item_id in enumerate(shadow)}
        both = [(place, places[item_id]) for place, item_id in enumerate(given) if item_id in places]
        overlap = len(both) / max(len(given), 1)
        self.compared += 1
        self.overlap += overlap
        if len(both) >= 2:
            ranks = np.argsort(np.argsort([other for _, other in both]))
            distance = float(((ranks - np.arange(len(both))) ** 2).sum())
            self.correlation += 1 - 6 * distance / (len(both) * (len(both) ** 2 - 1))  # Spearman 1904, without ties
            self.correlated += 1
        if both:
            self.score_difference += float(np.mean([abs(given_scores[a] - shadow_scores[b]) for a, b in both]))
            self.scored += 1
        return overlap


_SUMS = tuple(field.name for field in fields(Disagreement))


def add_disagreements(engine: Engine, found: dict[Key, Disagreement]) -> None:
    """Adds to what the table holds, in one transaction."""
    if not found:
        return
    rows = [
        {"experiment": key[0], "shadow": key[1], "release": key[2]} | {name: getattr(part, name) for name in _SUMS}
        for key, part in sorted(found.items(), key=lambda pair: pair[0])  # one order: no two writers wait in a ring
    ]
    statement = insert_into(engine, ShadowStatistic)
    sums = {name: getattr(ShadowStatistic, name) + statement.excluded[name] for name in _SUMS}
    statement = statement.on_conflict_do_update(index_elements=["experiment", "shadow", "release"], set_=sums)
    with engine.begin() as connection:
        connection.execute(statement, rows)


def disagreements(engine: Engine, experiments: Iterable[str] | None = None) -> dict[Key, Disagreement]:
    """What the table holds, by key."""
    query = select(ShadowStatistic.__table__).order_by(ShadowStatistic.experiment, ShadowStatistic.shadow)
    if experiments is not None:
        query = query.where(ShadowStatistic.experiment.in_(list(experiments)))
    with engine.connect() as connection:
        rows = [row._mapping for row in connection.execute(query)]
    return {
        (row["experiment"], row["shadow"], row["release"]): Disagreement(**{name: row[name] for name in _SUMS})
        for row in rows
    }
