"""EventService: each event checked by itself, the good ones made durable together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeAlias

from braid.v1 import event_pb2 as pb
from braid.v1 import event_pb2_grpc
from features.log.event_log import Outcome
from server.deadline import Deadline
from server.errors import Unavailable
from server.record.eraser import Eraser
from server.record.event_writer import EventWriter
from server.services.calls import Limit, answers, answers_stream
from server.services.event_batch import EventBatch
from server.services.fields import Fields

MAX_UNANSWERED = 64
"""Requests of one stream that wait for their commit."""

Line: TypeAlias = asyncio.Queue[tuple[EventBatch, asyncio.Future[list[Outcome]]] | None]


class EventService(event_pb2_grpc.EventServiceServicer):
    """What shoppers do, as the storefront reports it."""

    def __init__(self, writer: EventWriter, eraser: Eraser, limit: Limit) -> None:
        self._writer = writer
        self._eraser = eraser
        self.limit = limit
        self._readers: set[asyncio.Task[None]] = set()

    def drain(self) -> None:
        """Reads no more of any stream; each ends once what was read is answered."""
        for reader in self._readers:
            reader.cancel()

    @answers
    async def WriteEvents(self, request: pb.WriteEventsRequest, deadline: Deadline) -> pb.WriteEventsResponse:
        """One status for each event, in the order of the request."""
        batch = EventBatch.of(request.events)
        outcomes = await self._writer.write(batch.good, deadline) if batch.good else []
        return pb.WriteEventsResponse(statuses=batch.answered(outcomes))

    @answers_stream
    async def StreamEvents(
        self, requests: AsyncIterator[pb.StreamEventsRequest], deadline: Deadline
    ) -> AsyncGenerator[pb.StreamEventsResponse, None]:
        """A response for each request, in order; reads ahead as far as there is room."""
        line: Line = asyncio.Queue()
        window = asyncio.Semaphore(MAX_UNANSWERED)
        reader = asyncio.ensure_future(self._read(requests, line, window))
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)
        reader.add_done_callback(lambda _: line.put_nowait(None))
        try:
            while waiting := await line.get():
                batch, commit = waiting
                outcomes = await self._writer.finish(commit, deadline)
                yield pb.StreamEventsResponse(statuses=batch.answered(outcomes))
                window.release()
            if reader.cancelled():
                raise Unavailable("the gateway is stopping; open another stream for what was not answered")
            await reader  # raises what ended the reading
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            while not line.empty():
                if (left := line.get_nowait()) and not left[1].cancel():
                    left[1].exception()  # told to nobody: the stream has ended

    async def _read(
        self, requests: AsyncIterator[pb.StreamEventsRequest], line: Line, window: asyncio.Semaphore
    ) -> None:
        """Puts the requests in line for the log; the queue ends with None.

        Raises:
            InvalidRequest: a request has no events, or too many.
        """
        await window.acquire()
        async for request in requests:
            batch = EventBatch.of(request.events)
            await self._writer.room(len(batch.good))
            line.put_nowait((batch, self._writer.begin(batch.good)))
            await window.acquire()

    @answers
    async def DeleteUser(self, request: pb.DeleteUserRequest, deadline: Deadline) -> pb.DeleteUserResponse:
        """Erased everywhere when it returns."""
        fields = Fields()
        fields.shopper(request.user_id, request.session_id)
        if request.user_id and request.session_id:
            fields.refuse("session_id", "is given with user_id; give one of them, a person's sessions are known")
        fields.done()
        await self._eraser.erase(request.user_id, request.session_id, deadline)
        return pb.DeleteUserResponse()
