"""How the commands end when a person can put it right."""

from __future__ import annotations

from contextlib import AbstractContextManager

from features import terminal
from features.traffic.split import TrafficNotPossible
from training.dataset import DataError


def clear_errors() -> AbstractContextManager[None]:
    """`features.terminal.clear_errors`, with the errors of this package."""
    return terminal.clear_errors(DataError, TrafficNotPossible, ValueError, OSError)
