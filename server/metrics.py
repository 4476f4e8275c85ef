"""What a gateway process counts, in Prometheus' form, and the address where it is read.

Each process counts for itself: where several share the gateway's address, each has a metrics address of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram, start_http_server

ANSWERS_RECORDED = Counter("braid_answers_recorded", "Answers written to the table answers")
ANSWERS_DROPPED = Counter("braid_answers_dropped", "Answers that were not recorded", ["reason"])
"""reason: `queue` (too many were waiting) or `database` (it did not take them)."""
STALE_INTERESTS = Counter("braid_stale_interests", "Long-term vectors left out because newer events are not in them")
EVENTS = Counter("braid_events", "Events that were sent", ["status"])
"""status: `stored`, `duplicate`, `erased` or `refused`."""
CALLS_REFUSED = Counter("braid_calls_refused", "Calls that were not taken", ["reason"])
"""reason: `delay` (calls wait longer than the target), `memory` (too many are under way, streams are open, or messages
are on their way), `key` (none, or not one of ours), `scope` (the key is not for the method) or `rate` (the key's)."""
REFUSAL_SECONDS = Histogram(
    "braid_refusal_seconds",
    "From the moment that the gateway sees a call to its refusal for the delay",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25),
)
ADMISSION_LIMIT = Gauge("braid_admission_limit", "Calls that recommend which may be under way now")


def serve_metrics(address: str) -> Callable[[], None]:
    """Serves the counters over HTTP at `host:port`; what it returns ends that.

    Raises:
        OSError: it cannot listen there.
    """
    host, _, port = address.rpartition(":")
    server, thread = start_http_server(int(port), host)

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end
