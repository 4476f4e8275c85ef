"""The work behind BentoML, with its adaptive batching.

    bentoml serve benchmarks.serving.peers.bentoml_service:Recommendations

`batchable=True` is its own way to throughput: a dispatcher learns how long batches take and gathers requests as long as
it pays. The batch runs in the service's one thread, which the store's connection belongs to. A request is a batch of
one user.
"""

from __future__ import annotations

import bentoml  # type: ignore[import-not-found]

from benchmarks.serving.peers.recommender import MAX_BATCH, Page, Recommender
from features.settings import load_settings

LONGEST_MS = 2_000
"""What the dispatcher expects to take longer is refused; as long as the load waits."""


@bentoml.service(
    workers=1,
    threads=1,
    traffic={"concurrency": MAX_BATCH},
    logging={"access": {"enabled": False}},
)
class Recommendations:
    """One worker."""

    def __init__(self) -> None:
        self._recommender = Recommender(load_settings())

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=LONGEST_MS)  # type: ignore[untyped-decorator]
    def recommend(self, user_ids: list[str]) -> list[Page]:
        """Items for each user."""
        return self._recommender.recommend(user_ids)
