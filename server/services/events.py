"""EventService: each event checked by itself, the good ones made durable together."""

from __future__ import annotations

from braid.v1 import event_pb2 as pb
from braid.v1 import event_pb2_grpc
from features.event_log import NewEvent, Outcome
from features.schema import MAX_BATCH_EVENTS
from server.deadline import Deadline
from server.eraser import Eraser
from server.event_writer import EventWriter
from server.services.calls import CallLimit, answers
from server.services.fields import Fields
from server.services.shopper_fields import new_event, now_ms

CODES = {
    Outcome.DUPLICATE: pb.EventStatus.CODE_DUPLICATE,
    Outcome.STORED: pb.EventStatus.CODE_STORED,
    Outcome.ERASED: pb.EventStatus.CODE_ERASED,
}
ERASED = "the person or the session was erased; one who comes back needs a new user_id and a new session_id"


class EventService(event_pb2_grpc.EventServiceServicer):
    """What shoppers do, as the storefront reports it."""

    def __init__(self, writer: EventWriter, eraser: Eraser, limit: CallLimit) -> None:
        self._writer = writer
        self._eraser = eraser
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
        for place, outcome in zip(places, await self._writer.write(good, deadline), strict=True):
            statuses[place].code = CODES[outcome]
            if outcome is Outcome.ERASED:
                statuses[place].description = ERASED
        return pb.WriteEventsResponse(statuses=statuses)

    @answers
    async def DeleteUser(self, request: pb.DeleteUserRequest, deadline: Deadline) -> pb.DeleteUserResponse:
        """Erased everywhere when it returns."""
        fields = Fields()
        fields.text("user_id", request.user_id)
        fields.text("session_id", request.session_id)
        fields.flag_together(("user_id", "session_id"), (request.user_id, request.session_id))
        if request.user_id and request.session_id:
            fields.refuse("session_id", "is given with user_id; give one of them, a person's sessions are known")
        fields.done()
        await self._eraser.erase(request.user_id, request.session_id, deadline)
        return pb.DeleteUserResponse()
