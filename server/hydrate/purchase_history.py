"""All that a shopper ever bought, where the feature store does not say so: its row is full, or it does not answer."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine, func, select

from features.database.models import Event
from features.schema import EventType
from server.deadline import Deadline
from server.hydrate.history_reader import HistoryReader


class PurchaseHistory:
    """Reads the event log by shopper, along its index."""

    def __init__(self, engine: Engine, reader: HistoryReader) -> None:
        self._engine = engine
        self._reader = reader

    async def bought_ms(self, shoppers: Sequence[str], deadline: Deadline) -> dict[str, int]:
        """Item id to the time of the last purchase.

        Raises:
            HistoryUnavailable: the log did not answer in time, or failed.
        """
        return await self._reader.read(deadline, self._read, shoppers)

    def _read(self, shoppers: Sequence[str]) -> dict[str, int]:
        statement = (
            select(Event.item_id, func.max(Event.event_time_ms))
            .where(Event.shopper.in_(shoppers), Event.event_type == EventType.PURCHASE, Event.item_id.is_not(None))
            .group_by(Event.item_id)
        )
        with self._engine.connect() as connection:
            return {item_id: time_ms for item_id, time_ms in connection.execute(statement) if item_id is not None}
