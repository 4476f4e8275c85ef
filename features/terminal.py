"""What the command lines print to, and how they end when a person can put it right.

Text is shown as it is: names, reasons and paths may hold square brackets, which Rich would take for its own markup.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console
from sqlalchemy.exc import OperationalError

from features.database.engine import DatabaseError
from features.importing.errors import ImportFailed
from features.outage import words

WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
"""Columns, None for the terminal's own. In a file Rich takes 80, and cuts the figures and names of wide tables."""
console = Console(markup=False, highlight=False, width=WIDTH)
stderr = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)

_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def clear_errors(*others: type[Exception]) -> Iterator[None]:
    """Turns the errors that a person can put right, a full disk and `others` into one line and exit code 2."""
    from features.releases.release import ReleaseError  # it brings polars, for which who only prints has no use

    put_right: tuple[type[Exception], ...] = (DatabaseError, ImportFailed, ReleaseError, *others)
    looked_at: tuple[type[Exception], ...] = (OSError, *put_right)
    try:
        yield
    except looked_at as error:
        if isinstance(error, OSError) and error.errno in _DISK_IS_FULL:
            fail(f"The disk is full: {error}; free some where BRAID_HOME is, and run it again")
        if not isinstance(error, put_right):
            raise
        fail(str(error))
    except OperationalError as error:
        fail(f"The database does not answer: {words(error)}; check BRAID_HOME and BRAID_DATABASE_URL")


def fail(message: str) -> NoReturn:
    """Ends the command with one line and exit code 2."""
    stderr.print(f"error: {message}", style="red")
    raise typer.Exit(2) from None
