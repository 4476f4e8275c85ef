"""Tells the metrics how far features lag behind the event log, as the database says it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor

from sqlalchemy import Engine

from features.lags import Lags, lags
from server.following import refresh_for_ever
from server.metrics import STREAM_LAG_SECONDS, VECTOR_LAG_SECONDS

LOG = logging.getLogger(__name__)

POLL_S = 5.0


class Freshness:
    """Follows the log, the stream workers and the live release's vectors."""

    def __init__(self, engine: Engine, live_release: Callable[[], int], threads: Executor) -> None:
        self._engine = engine
        self._live_release = live_release
        self._threads = threads

    async def refresh(self) -> None:
        """Reads once.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        found: Lags = await asyncio.get_running_loop().run_in_executor(
            self._threads, lags, self._engine, self._live_release(), time.time_ns() // 1_000_000
        )
        STREAM_LAG_SECONDS.set(found.stream_s)
        VECTOR_LAG_SECONDS.set(found.vectors_s)

    async def follow(self) -> None:
        """Refreshes for ever; what fails is logged once."""
        await refresh_for_ever(self.refresh, POLL_S, LOG, "how fresh the features are is not known for now")
