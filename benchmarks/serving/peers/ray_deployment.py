"""The work behind Ray Serve, with `serve.batch`: one replica behind its HTTP door.

    python -m benchmarks.serving.peers.ray_deployment <port>

As its performance guide asks: more requests in flight than a batch holds, no access log, a batch off the event loop in
a thread (here the one that the store's connection belongs to), and by the variables that `servers` sets HAProxy before
the replica. Ray's own processes, its agents and HAProxy's counters, listen beyond loopback.
"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

import ray  # type: ignore[import-not-found]
from ray import serve
from starlette.requests import Request

from benchmarks.serving.peers.recommender import MAX_BATCH, Page, Recommender
from features.settings import load_settings

MOST_CALLS = 1_024
"""In flight in a replica; the default, 5, would never fill a batch."""
LONGEST_WAIT_S = 0.01
"""For a batch to fill; Ray's default."""


@serve.deployment(max_ongoing_requests=MOST_CALLS, logging_config={"enable_access_log": False})
class Recommendations:
    """One replica."""

    def __init__(self) -> None:
        self._recommender = Recommender(load_settings())
        self._thread = ThreadPoolExecutor(1)

    async def __call__(self, request: Request) -> Page:
        """Items for a user."""
        page: Page = await self._batch((await request.json())["user_id"])
        return page

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=LONGEST_WAIT_S)  # type: ignore[untyped-decorator]
    async def _batch(self, users: list[str]) -> list[Page]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._recommender.recommend, users)


if __name__ == "__main__":
    ray.init(include_dashboard=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    application = Recommendations.bind()  # type: ignore[attr-defined]  # the decorator has made a deployment of it
    serve.run(application, route_prefix="/recommend", blocking=True)
