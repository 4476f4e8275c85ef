"""Time that stands still until a test moves it."""

from __future__ import annotations


class Clock:
    """A clock that a test moves."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s
