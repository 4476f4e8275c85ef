"""What an experiment's recorded answers say of its arms: failures, tiers, latencies, and who has clicked."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine, func, select

from features.database.models import Answer, Event
from features.schema import EventType, Tier
from features.traffic.sequential_test import FirstClicks
from features.traffic.split import MAX_COMPARED, Arm

SETTLED_MS: Final = 2_000
"""An event is looked at when the answer that it names has been recorded by all likelihood."""
_EVENTS_AT_ONCE: Final = 20_000

StageArm = tuple[int, int]
"""Stage (of `traffic_changes`) and arm (a release)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFigures:
    """The newest answers of one arm, at most `MAX_COMPARED`."""

    answers: int
    failed: int
    """Its model did not answer."""
    lower: int
    """From beneath the highest tier."""
    latencies_ms: npt.NDArray[np.float64]

    @property
    def p99_ms(self) -> float:
        """0 where there are none."""
        return float(np.quantile(self.latencies_ms, 0.99)) if self.latencies_ms.size else 0.0


def arm_figures(engine: Engine, experiment: str, stage: int, arm: int, since_ms: int) -> ArmFigures:
    """Of one arm in one stage, which began at `since_ms`."""
    query = (
        select(Answer.model_failed, Answer.tier, Answer.latency_ms)
        .where(Answer.experiment == experiment, Answer.answered_time_ms >= since_ms)
        .where(Answer.stage == stage, Answer.arm == arm)
        .order_by(Answer.answered_time_ms.desc())
        .limit(MAX_COMPARED)
    )
    with engine.connect() as connection:
        rows = connection.execute(query).fetchall()
    return ArmFigures(
        answers=len(rows),
        failed=sum(bool(row[0]) for row in rows),
        lower=sum(row[1] != Tier.FULL for row in rows),
        latencies_ms=np.array([row[2] for row in rows], np.float64),
    )


class FirstClickCount:
    """Counts shoppers by the stage and arm of their first click, following the event log from a position on.

    A click is any event but an impression on an item of an answered page that carries the page's token.
    """

    def __init__(self, engine: Engine, experiment: str, position: int) -> None:
        self._engine = engine
        self._experiment = experiment
        self._position = position
        self._clicked: set[bytes] = set()  # digests: an erased person's key must not live on here
        self.counts: Counter[StageArm] = Counter()

    def advance(self, before_ms: int) -> None:
        """Takes in the events that arrived before a time."""
        while True:
            span = select(Event.position).where(Event.position > self._position, Event.arrival_time_ms < before_ms)
            span = span.order_by(Event.position).limit(_EVENTS_AT_ONCE)
            with self._engine.connect() as connection:
                through = connection.scalar(select(func.max(span.subquery().c.position)))
                if through is None:
                    return
                query = (
                    select(Answer.shopper, Answer.stage, Answer.arm, Answer.item_ids, Event.item_id)
                    .join(Event, Event.attribution_token == Answer.attribution_token)
                    .where(Event.position > self._position, Event.position <= through)
                    .where(Event.event_type != int(EventType.IMPRESSION), Answer.experiment == self._experiment)
                    .order_by(Event.position)
                )
                for shopper, stage, arm, item_ids, item_id in connection.execute(query):
                    digest = hashlib.blake2b(shopper.encode(), digest_size=8).digest()
                    if item_id in item_ids and digest not in self._clicked:
                        assert stage is not None and arm is not None, "they are stored with the experiment"
                        self._clicked.add(digest)
                        self.counts[stage, arm] += 1
            self._position = through


def first_clicks(
    counts: Mapping[StageArm, int], stages: Mapping[int, Sequence[Arm]], control: int, treatment: int
) -> list[FirstClicks]:
    """The counts of two arms with the treatment's share of them, by stage."""
    found = []
    for stage, arms in sorted(stages.items()):
        weights = {arm.release: arm.weight for arm in arms}
        both = counts.get((stage, control), 0) + counts.get((stage, treatment), 0)
        if both and control in weights and treatment in weights:
            share = weights[treatment] / (weights[control] + weights[treatment])
            found.append(FirstClicks(share, counts.get((stage, treatment), 0), both))
    return found
