"""What was answered to a shopper since a moment, from the table `answers`."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Engine, select

from features.database.models import Answer
from server.deadline import Deadline
from server.hydrate.history_reader import HistoryReader


class ShownHistory:
    """Reads the recorded answers by shopper and by session, along their indexes."""

    def __init__(self, engine: Engine, reader: HistoryReader) -> None:
        self._engine = engine
        self._reader = reader

    async def shown_item_ids(
        self, shoppers: Sequence[str], session_id: str, since_ms: int, deadline: Deadline
    ) -> set[str]:
        """Items of every recorded answer to one of the shoppers or in the session.

        Raises:
            HistoryUnavailable: the database did not answer in time, or failed.
        """
        return await self._reader.read(deadline, self._read, shoppers, session_id, since_ms)

    def _read(self, shoppers: Sequence[str], session_id: str, since_ms: int) -> set[str]:
        whose: list[ColumnElement[bool]] = [Answer.shopper.in_(shoppers)]
        if session_id:
            whose.append(Answer.session_id == session_id)
        found: set[str] = set()
        with self._engine.connect() as connection:
            for one in whose:
                statement = select(Answer.item_ids).where(one, Answer.answered_time_ms >= since_ms)
                for item_ids in connection.scalars(statement):
                    found.update(item_ids)
        return found
