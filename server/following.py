"""Keeps something in memory as the database has it: one way for all that is read again every moment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from sqlalchemy.exc import SQLAlchemyError


async def refresh_for_ever(
    refresh: Callable[[], Awaitable[None]], every_s: float, logger: logging.Logger, stays: str
) -> None:
    """Calls `refresh` for ever; a database that does not answer is logged once, in the words `stays`."""
    quiet = False
    while True:
        try:
            await refresh()
            quiet = False
        except SQLAlchemyError as error:
            if not quiet:
                logger.warning("%s: %s", stays, error)
            quiet = True
        await asyncio.sleep(every_s)
