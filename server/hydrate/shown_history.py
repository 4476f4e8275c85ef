"""What was answered to a shopper since a moment, from the table `answers`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor

from sqlalchemy import ColumnElement, Engine, select

from features.database.models import Answer


class ShownHistory:
    """Reads the recorded answers by shopper and by session, along their indexes."""

    def __init__(self, engine: Engine, threads: Executor) -> None:
        self._engine = engine
        self._threads = threads

    async def shown_item_ids(
        self, shoppers: Sequence[str], session_id: str, since_ms: int, timeout_s: float
    ) -> set[str]:
        """Items of every recorded answer to one of the shoppers or in the session.

        Raises:
            asyncio.TimeoutError, SQLAlchemyError: the database did not answer in time, or failed.
        """
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._read, shoppers, session_id, since_ms)
        return await asyncio.wait_for(work, timeout_s)

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
