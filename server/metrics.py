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
"""reason: `delay` (calls wait longer than the target) or `memory` (too many are under way)."""
REFUSAL_SECONDS = Histogram(
    "braid_refusal_seconds",
    "From the moment that the gateway sees a call to its refusal for the delay",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25),
)
SHADOW_COPIES = Counter("braid_shadow_copies", "Requests that a shadow release was to answer too", ["outcome"])
"""outcome: `compared`, `failed` (the shadow's model did not answer) or `dropped` (there was no time for it)."""
SHADOW_OVERLAP = Histogram(
    "braid_shadow_overlap",
    "Share of an answered page that the shadow's page has too",
    buckets=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
SHADOW_SECONDS = Histogram(
    "braid_shadow_seconds",
    "What a shadow's page takes",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
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
