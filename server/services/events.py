"""EventService: each event checked by itself, the good ones made durable together."""

from __future__ import annotations

from braid.v1 import event_pb2 as pb
from braid.v1 import event_pb2_grpc
from features.event_log import NewEvent
from features.schema import MAX_BATCH_EVENTS
from server.deadline import Deadline
from server.event_writer import EventWriter
from server.metrics import EVENTS
from server.services.calls import CallLimit, answers
from server.services.fields import Fields
from server.services.shopper_fields import new_event, now_ms


class EventService(event_pb2_grpc.EventServiceServicer):
    """What shoppers do, as the storefront reports it."""

    def __init__(self, writer: EventWriter, limit: CallLimit) -> None:
        self._writer = writer
        self.limit = limit

    @answers
    async def WriteEvents(self, request: pb.WriteEventsRequest, deadline: Deadline) -> pb.WriteEventsResponse:
        """One status for each event, in the order of the request."""
        fields = Fields()
        fields.count("events", request.events, MAX_BATCH_EVENTS, 1)
        fields.done()
        moment_ms = now_ms()
        statuses: list[pb.EventStatus] = []
        good: list[NewEvent] = []
        places: list[int] = []
        for event in request.events:
            checks = Fields()
            read = new_event(checks, event, moment_ms)
            status = pb.EventStatus(event_id=event.event_id)
            if checks.violations:
                status.code = pb.EventStatus.CODE_INVALID
                status.field, status.description = checks.violations[0].field, checks.violations[0].description
            else:
                places.append(len(statuses))
                good.append(read)
            statuses.append(status)
        stored = await self._writer.write(good, deadline)
        for place, new in zip(places, stored, strict=True):
            statuses[place].code = pb.EventStatus.CODE_STORED if new else pb.EventStatus.CODE_DUPLICATE
        EVENTS.labels("stored").inc(sum(stored))
        EVENTS.labels("duplicate").inc(len(stored) - sum(stored))
        EVENTS.labels("refused").inc(len(statuses) - len(stored))
        return pb.WriteEventsResponse(statuses=statuses)
