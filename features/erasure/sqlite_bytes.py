"""The bytes of deleted rows in a SQLite file: the log beside it is emptied into it, and it is looked through.

Secure deletion puts zeros over a deleted row, but not over copies of it that a page kept when the rows on it were laid
out anew. Where an id is still found, the whole file is written anew (VACUUM).
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from features.database.engine import DatabaseError
from features.settings import ROOT

READERS_WAIT_S: Final = 30.0
_RETRY_S = 0.05


def clean(path: Path, ids: Sequence[str], *, whole: bool = False) -> None:
    """Leaves no byte of deleted rows that name one of `ids`.

    Args:
        whole: write the file anew without looking.

    Raises:
        DatabaseError: a transaction kept an old state for longer than `READERS_WAIT_S`.
        sqlite3.Error: the file cannot be written; a disk needs room for a second copy of it.
    """
    with closing(sqlite3.connect(path, timeout=READERS_WAIT_S, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete=ON")
        _empty_log(connection, path)
        if whole or _holds(path, ids):
            connection.execute("VACUUM")
            _empty_log(connection, path)


def _empty_log(connection: sqlite3.Connection, path: Path) -> None:
    deadline_s = time.monotonic() + READERS_WAIT_S
    while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() > deadline_s:
            raise DatabaseError(
                f"an old state of {path.name} is being read for over {READERS_WAIT_S:.0f} s; end the reader"
            )
        time.sleep(_RETRY_S)


def _holds(path: Path, ids: Sequence[str]) -> bool:
    # In a process of its own: closing the file in this one would drop the locks of every SQLite connection in it.
    command = [sys.executable, "-m", "features.erasure.search", str(path.absolute())]
    done = subprocess.run(command, cwd=ROOT, input="\0".join(ids).encode(), capture_output=True, check=False)
    if done.returncode not in (0, 1):
        raise OSError(f"{path.name} cannot be looked through: {done.stderr.decode(errors='replace').strip()[-200:]}")
    return done.returncode == 0
