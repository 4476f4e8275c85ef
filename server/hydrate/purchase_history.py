"""All that a shopper ever bought, for the few whose purchases do not fit into one row of the feature store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor

from sqlalchemy import Engine, func, select

from features.database.models import Event
from features.schema import EventType


class PurchaseHistory:
    """Reads the event log by shopper, along its index."""

    def __init__(self, engine: Engine, threads: Executor) -> None:
        self._engine = engine
        self._threads = threads

    async def bought_ms(self, shoppers: Sequence[str], timeout_s: float) -> dict[str, int]:
        """Item id to the time of the last purchase.

        Raises:
            asyncio.TimeoutError, SQLAlchemyError: the log did not answer in time, or failed.
        """
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._read, shoppers)
        return await asyncio.wait_for(work, timeout_s)

    def _read(self, shoppers: Sequence[str]) -> dict[str, int]:
        statement = (
            select(Event.item_id, func.max(Event.event_time_ms))
            .where(Event.shopper.in_(shoppers), Event.event_type == EventType.PURCHASE, Event.item_id.is_not(None))
            .group_by(Event.item_id)
        )
        with self._engine.connect() as connection:
            return {item_id: time_ms for item_id, time_ms in connection.execute(statement) if item_id is not None}
