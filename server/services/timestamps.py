"""Times as messages say them."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(time_ms: int | None) -> Timestamp | None:
    """A moment; None, which leaves a field unset, where there is none."""
    return None if time_ms is None else Timestamp(seconds=time_ms // 1000, nanos=time_ms % 1000 * 1_000_000)
