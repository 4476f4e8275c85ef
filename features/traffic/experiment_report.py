"""An experiment's arms side by side, and how much likelier each arm's shoppers click than the first one's.

The p-value and the interval of the ratio hold at any time: whoever looks every day and stops when something shows is
wrong no more often than they say (`features.traffic.sequential_test`). The click-through beside them is of single
answers and describes; answers of one shopper are not independent, so that its interval is not for deciding.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.table import Table
from sqlalchemy import Engine, distinct, func, select

from features.database.models import Answer, Event
from features.traffic.experiment import SETTLED_MS, FirstClickCount, first_clicks
from features.traffic.rate import Rate
from features.traffic.sequential_test import Difference, difference
from features.traffic.traffic_table import TrafficTable


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmLine:
    """One arm of an experiment."""

    release: int
    shoppers: int
    answers: int
    failed: Rate
    mean_ms: float
    clicked: Rate
    """Shoppers of those with an answer who clicked at all."""
    compared: Difference | None
    """Against the first arm; None for that one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentReport:
    """The arms of one experiment, the control first."""

    experiment: str
    since_ms: int
    arms: list[ArmLine]

    def table(self) -> Table:
        """As a person reads it."""
        table = Table(title=f"Experiment {self.experiment}")
        columns = ("", "shoppers", "answers", "model failed", "mean ms", "shoppers who clicked", "ratio", "p, any time")
        for name in columns:
            table.add_column(name, justify="right" if name else "left")
        for line in self.arms:
            found = line.compared
            table.add_row(
                f"release {line.release}",
                f"{line.shoppers:,}",
                f"{line.answers:,}",
                f"{line.failed.share:.2%}",
                f"{line.mean_ms:.1f}",
                str(line.clicked),
                "control" if found is None else _ratio(found),
                "" if found is None else f"{found.p_value:.3g}",
            )
        return table


def experiment_report(engine: Engine, experiment: str, since_ms: int) -> ExperimentReport:
    """The figures of an experiment's answers from a time on."""
    stages = TrafficTable(engine).stages(experiment)
    releases = list(dict.fromkeys(arm.release for arms in stages.values() for arm in arms))
    with engine.connect() as connection:
        before = select(func.max(Event.position)).where(Event.arrival_time_ms < since_ms)
        count = FirstClickCount(engine, experiment, connection.scalar(before) or 0)
        query = select(
            Answer.arm,
            func.count(distinct(Answer.shopper)),
            func.count(),
            func.count().filter(Answer.model_failed.is_(True)),
            func.avg(Answer.latency_ms),
        ).where(Answer.experiment == experiment, Answer.answered_time_ms >= since_ms)
        figures = {row[0]: row[1:] for row in connection.execute(query.group_by(Answer.arm))}
    count.advance(time.time_ns() // 1_000_000 - SETTLED_MS)
    lines = []
    for release in releases:
        shoppers, answers, failed, mean_ms = figures.get(release, (0, 0, 0, 0.0))
        clicked = sum(clicks for (_, arm), clicks in count.counts.items() if arm == release)
        clicks = first_clicks(count.counts, stages, releases[0], release) if release != releases[0] else []
        lines.append(
            ArmLine(
                release=release,
                shoppers=shoppers,
                answers=answers,
                failed=Rate.of(failed, answers),
                mean_ms=mean_ms,
                clicked=Rate.of(min(clicked, shoppers), shoppers),
                compared=None if release == releases[0] else difference(clicks),
            )
        )
    return ExperimentReport(experiment=experiment, since_ms=since_ms, arms=lines)


def experiments_between(engine: Engine, since_ms: int, until_ms: int) -> list[str]:
    """The experiments that have answers in [since, until)."""
    query = (
        select(Answer.experiment)
        .distinct()
        .where(Answer.experiment.is_not(None), Answer.answered_time_ms >= since_ms, Answer.answered_time_ms < until_ms)
    )
    with engine.connect() as connection:
        return sorted(name for name in connection.scalars(query) if name is not None)


def _ratio(found: Difference) -> str:
    return "-" if found.ratio is None else f"{found.ratio:.2f} ({found.low:.2f} to {found.high:.2f})"
