"""What the commands print to, and how they end when a person can put it right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from features.database.engine import DatabaseError
from features.releases.release import ReleaseError
from features.traffic.split import TrafficNotPossible
from training.dataset import DataError

console = Console()
errors = Console(stderr=True, soft_wrap=True, highlight=False)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turns the errors that a person can put right into one line and exit code 2."""
    try:
        yield
    except (DataError, ReleaseError, DatabaseError, TrafficNotPossible, ValueError, OSError) as error:
        errors.print(f"[red]error:[/red] {error}", markup=True)
        raise typer.Exit(2) from None
