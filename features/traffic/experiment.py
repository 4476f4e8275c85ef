"""Who has clicked in an experiment, by arm and stage."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Engine, func, select

from features.database.models import Answer, Event
from features.schema import MAX_CLOCK_SKEW_S, EventType
from features.traffic.sequential_test import FirstClicks
from features.traffic.split import Arm

SETTLED_MS: Final = 2_000
"""An event is looked at when the answer that it names has been recorded by all likelihood."""
_EVENTS_AT_ONCE: Final = 20_000
_NO_END: Final = 2**62

StageArm = tuple[int, int]
"""Stage (of `traffic_changes`) and arm (a release)."""


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
        """Takes in the events up to the first that arrived later; clocks differ, so that some behind it may not have.

        One from more than `MAX_CLOCK_SKEW_S` later is the word of a wrong clock and waited for by nobody.
        """
        late = select(func.min(Event.position)).where(
            Event.position > self._position,
            Event.arrival_time_ms >= before_ms,
            Event.arrival_time_ms < before_ms + 1000 * MAX_CLOCK_SKEW_S,
        )
        with self._engine.connect() as connection:
            end = connection.scalar(late) or _NO_END
        while True:
            span = select(Event.position).where(Event.position > self._position, Event.position < end)
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
