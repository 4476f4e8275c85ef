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
    """An error's kind and its words."""
    return f"{type(error).__name__}: {words(error)}"


def words(error: Exception) -> str:
    """What an error says, in a line; of a statement's error the driver's own words alone: the rest may quote ids."""
    own = getattr(error, "orig", None) or error
    return (str(own).strip() or f"{type(own).__name__} without a message").splitlines()[0]
