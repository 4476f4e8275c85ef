"""Which of a machine's gateway processes drives Triton: the one that holds a file lock, until it ends or hangs.

The holder keeps the file's time of change young. One that hangs does not, and keeps its lock all the same: the others
then put another file in the place of its own, and when it goes on it finds that it holds nothing.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from pathlib import Path
from typing import IO

from server.following import refresh_for_ever

LOG = logging.getLogger(__name__)

KEEP_S = 1.0
"""Between two signs of life."""
LEASE_S = 15.0
"""A holder that has given none for so long hangs."""


class Election:
    """Asked as often as one likes; once won it stays won while `follow` runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def won(self) -> bool:
        """Whether this process holds the lock, which it takes if nobody has it."""
        if self._file is not None and not self._in_place(self._file):
            LOG.warning("another process drives Triton from now on: this one stood still")
            self.resign()
        if self._file is None:
            self._file = self._take()
        if self._file is not None:
            os.utime(self._file.fileno())
        return self._file is not None

    async def follow(self) -> None:
        """Keeps the lock, or looks for one that nobody keeps, for ever."""
        await refresh_for_ever(self._keep, KEEP_S, LOG, "which process drives Triton stays as it is for now")

    def resign(self) -> None:
        """Lets another process win."""
        if self._file is not None:
            self._file.close()
            self._file = None

    async def _keep(self) -> None:
        self.won()

    def _take(self) -> IO[str] | None:
        """The file with its lock; None where another has it, or had it and hangs: the next look finds it free."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a")  # "w" would change its time
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except BlockingIOError:
            locked = False
        in_place = self._in_place(file)
        if locked and in_place:
            return file
        if in_place and time.time() - os.fstat(file.fileno()).st_mtime > LEASE_S:
            LOG.warning("the process that drives Triton hangs: another one takes its place")
            self._path.unlink(missing_ok=True)
        file.close()
        return None

    def _in_place(self, file: IO[str]) -> bool:
        """Whether it is the file that others find at the path."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self._path))
        except FileNotFoundError:
            return False
