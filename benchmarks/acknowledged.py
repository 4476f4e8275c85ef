"""Events that a gateway said it has, and those that the log has."""

from __future__ import annotations

from braid.v1 import event_pb2 as pb
from features.log.event_log import EventLog

STORED = (pb.EventStatus.CODE_STORED, pb.EventStatus.CODE_DUPLICATE)


def acknowledged_ids(answer: pb.WriteEventsResponse) -> list[str]:
    """Ids of the events that the answer says are stored."""
    return [status.event_id for status in answer.statuses if status.code in STORED]


def logged_ids(log: EventLog) -> list[str]:
    """Ids of the log's events, in its order."""
    return [event_id for frame in log.scan() for event_id in frame["event_id"]]
