"""The events of one request, each checked by itself: what is good goes to the log, and each gets its status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from braid.v1 import event_pb2 as pb
from features.log.event_log import NewEvent, Outcome
from features.schema import MAX_BATCH_EVENTS, MAX_ID_CHARS
from server.metrics import EVENTS
from server.services.fields import Fields
from server.services.shopper_fields import new_event, now_ms

_CODES = {
    Outcome.STORED: pb.EventStatus.CODE_STORED,
    Outcome.DUPLICATE: pb.EventStatus.CODE_DUPLICATE,
    Outcome.ERASED: pb.EventStatus.CODE_ERASED,
    Outcome.REFUSED: pb.EventStatus.CODE_INVALID,
}
_ERASED = "the person or the session was erased; one who comes back needs a new user_id and a new session_id"


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Statuses in the order of the request, and the good events with their places among them."""

    statuses: list[pb.EventStatus]
    good: list[NewEvent]
    places: list[int]

    @classmethod
    def of(cls, events: Sequence[pb.Event]) -> EventBatch:
        """Checks every event.

        Raises:
            InvalidRequest: there are none, or too many.
        """
        fields = Fields()
        fields.count("events", events, MAX_BATCH_EVENTS, 1)
        fields.done()
        moment_ms = now_ms()
        batch = cls([], [], [])
        for place, event in enumerate(events):
            checks = Fields()
            read = new_event(checks, event, moment_ms)
            status = pb.EventStatus(event_id=event.event_id[:MAX_ID_CHARS])
            if checks.violations:
                first = checks.violations[0]
                status.code, status.field = pb.EventStatus.CODE_INVALID, first.field
                status.description = first.description
            else:
                batch.good.append(read)
                batch.places.append(place)
            batch.statuses.append(status)
        return batch

    def answered(self, outcomes: Sequence[Outcome]) -> list[pb.EventStatus]:
        """The statuses, once the log has told what became of the good events."""
        for place, outcome in zip(self.places, outcomes, strict=True):
            status = self.statuses[place]
            status.code = _CODES[outcome]
            if outcome is Outcome.REFUSED:
                status.field, status.description = "event", "the database refuses its data; correct it or leave it out"
            elif outcome is Outcome.ERASED:
                status.description = _ERASED
        for outcome in Outcome:
            EVENTS.labels(outcome.name.lower()).inc(outcomes.count(outcome))
        EVENTS.labels(Outcome.REFUSED.name.lower()).inc(len(self.statuses) - len(self.places))
        return self.statuses
