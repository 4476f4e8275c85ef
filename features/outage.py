"""One log line when a part stops working and one when it works again, however many calls fail in between."""

from __future__ import annotations

import logging
import time


class Outage:
    """Whether a part is gone.

    Args:
        logger: that of the part's module.
        begun: the line when it goes; the cause comes behind it.
        ended: the line when it is back; its duration comes behind it.
        ended_level: of that line.
    """

    def __init__(self, logger: logging.Logger, begun: str, ended: str, *, ended_level: int = logging.WARNING) -> None:
        self._logger = logger
        self._ended_level = ended_level
        self._begun = begun
        self._ended = ended
        self._since_s: float | None = None

    def begins(self, cause: str) -> None:
        """The part failed."""
        if self._since_s is None:
            self._since_s = time.monotonic()
            self._logger.error("%s: %s", self._begun, cause)

    def ends(self) -> None:
        """The part worked."""
        if self._since_s is not None:
            self._logger.log(self._ended_level, "%s, after %.1f s", self._ended, time.monotonic() - self._since_s)
            self._since_s = None


def cause(error: Exception) -> str:
    """An error's kind and the driver's own words: SQLAlchemy's hold the statement's parameters, and so people's ids."""
    lines = str(getattr(error, "orig", None) or error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
