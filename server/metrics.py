"""What a gateway process counts, in Prometheus' form, and the address where it is read.

Each process counts for itself: where several share the gateway's address, each has a metrics address of its own. What
the figures mean for whoever watches stands in docs/operations.md; `python -m deploy.dashboard` draws every one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from prometheus_client import Counter, Gauge, Histogram, start_http_server

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

SERVING = Gauge("braid_serving", "1 while the health service says SERVING")
CALLS = Counter("braid_calls", "Calls that have ended", ["method", "code"])
"""code: the name of the gRPC status; DEADLINE_EXCEEDED too where an answer came too late for its caller. Not among them
is what ends before its method begins, unless it is refused for the delay: what gRPC refuses, what a key does not allow,
a message that does not come or cannot be read."""
CALL_SECONDS = Histogram(
    "braid_call_seconds", "From the moment that a call is taken in to its end", ["method"], buckets=SECONDS
)
CALLS_UNDER_WAY = Gauge("braid_calls_under_way", "Calls that are being worked on, of every kind")
STAGE_SECONDS = Histogram(
    "braid_stage_seconds", "Where a call that recommends spends its time", ["stage"], buckets=SECONDS
)
"""stage: `decode`, `features`, `inference`, `select` or `encode`; the second and third with their wait in line."""
WAIT_SECONDS = Histogram(
    "braid_wait_seconds", "How long a request waits in line for the batch that takes it", ["line"], buckets=SECONDS
)
"""line: `features`, `model`, `event-log`, `shopper-history`, `database-writer` or `database-reader`."""
BATCH_SECONDS = Histogram("braid_batch_seconds", "How long the call of a batch takes", ["line"], buckets=SECONDS)
BATCH_SIZE = Histogram("braid_batch_size", "Requests that go together", ["line"], buckets=(1, 2, 4, 8, 16, 32, 64, 128))
ANSWERS = Counter("braid_answers", "Answers to Recommend and Rank", ["tier", "release"])
"""tier: in capitals, as in `braid.v1.Tier`; release: 0 where no model answered."""
LIVE_RELEASE = Gauge("braid_live_release", "Number of the release in service, 0 where there is none")
ANSWERS_RECORDED = Counter("braid_answers_recorded", "Answers written to the table answers")
ANSWERS_DROPPED = Counter("braid_answers_dropped", "Answers that were not recorded", ["reason"])
"""reason: `queue` (too many were waiting, or too large ones) or `database` (it did not take them)."""
STALE_INTERESTS = Counter("braid_stale_interests", "Long-term vectors left out because newer events are not in them")
EVENTS = Counter("braid_events", "Events that were sent", ["status"])
"""status: `stored`, `duplicate`, `erased` or `refused`."""
STREAM_LAG_SECONDS = Gauge("braid_stream_lag_seconds", "Age of the oldest event that recent features do not hold yet")
VECTOR_LAG_SECONDS = Gauge("braid_vector_lag_seconds", "Age of the oldest event that no long-term vector holds yet")
CATALOGUE_READ_TIME_SECONDS = Gauge(
    "braid_catalogue_read_time_seconds", "When the catalogue in memory was last the database's, in Unix time"
)
BREAKER_OPEN = Gauge("braid_breaker_open", "1 while a part counts as gone and is only tried now and then", ["part"])
"""part: `triton release=N`, `feature-store`, or `shopper-history` for what filters ask the database of a shopper."""
CALLS_REFUSED = Counter("braid_calls_refused", "Calls that were not taken", ["reason"])
"""reason: `delay` (calls wait longer than the target), `memory` (too many are under way, streams are open, or messages
are on their way), `key` (none, or not one of ours), `scope` (the key is not for the method) or `rate` (the key's)."""
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
UNSEEN_SECONDS = Gauge("braid_unseen_seconds", "How long gRPC keeps a call before the gateway sees it")

for _counter, _values in (
    (SHADOW_COPIES, ("compared", "failed", "dropped")),
    (ANSWERS_DROPPED, ("queue", "database")),
    (EVENTS, ("stored", "duplicate", "erased", "refused")),
    (CALLS_REFUSED, ("delay", "memory", "key", "scope", "rate")),
):
    for _value in _values:
        _counter.labels(_value)  # from 0, else Prometheus does not see the first one


def count_call(method: str, code: str) -> None:
    """Counts a call that has ended."""
    _calls(method, code).inc()


def time_call(method: str, seconds: float) -> None:
    """Notes how long a call took that was taken in."""
    _call_seconds(method).observe(seconds)


def count_answer(tier: str, release: int) -> None:
    """Counts an answer of Recommend or Rank."""
    _answers(tier, release).inc()


@cache  # finding the child costs more than counting
def _calls(method: str, code: str) -> Counter:
    return CALLS.labels(method, code)


@cache
def _call_seconds(method: str) -> Histogram:
    return CALL_SECONDS.labels(method)


@cache
def _answers(tier: str, release: int) -> Counter:
    return ANSWERS.labels(tier, str(release))


def serve_metrics(address: str) -> Callable[[], None]:
    """Serves the counters over HTTP at `host:port`; what it returns ends that.

    Raises:
        OSError: it cannot listen there.
    """
    host, _, port = address.rpartition(":")
    server, thread = start_http_server(int(port), host.strip("[]"))

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end
