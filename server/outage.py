"""One log line when a part stops working and one when it works again, however many calls fail in between."""

from __future__ import annotations

import logging
import time

LOG = logging.getLogger(__name__)


class Outage:
    """Whether a part is gone.

    Args:
        begun: the line when it goes; the cause comes behind it.
        ended: the line when it is back; its duration comes behind it.
    """

    def __init__(self, begun: str, ended: str) -> None:
        self._begun = begun
        self._ended = ended
        self._since_s: float | None = None

    def begins(self, cause: str) -> None:
        """The part failed."""
        if self._since_s is None:
            self._since_s = time.monotonic()
            LOG.error("%s: %s", self._begun, cause)

    def ends(self) -> None:
        """The part worked."""
        if self._since_s is not None:
            LOG.warning("%s, after %.1f s", self._ended, time.monotonic() - self._since_s)
            self._since_s = None
