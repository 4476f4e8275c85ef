"""Which of a machine's gateway processes drives Triton: the one that holds a file lock, until it dies."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO


class Election:
    """Asked as often as one likes; once won it stays won."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def won(self) -> bool:
        """Whether this process holds the lock, which it takes if nobody has it."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return False
            self._file = file
        return True

    def resign(self) -> None:
        """Lets another process win."""
        if self._file is not None:
            self._file.close()
            self._file = None
