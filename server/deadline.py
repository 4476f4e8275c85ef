"""How long a request may still take: every downstream call gets the smaller of its budget and what is left."""

from __future__ import annotations

import time
from dataclasses import dataclass

ANSWER_RESERVE_S = 0.003
"""Kept back from the caller's deadline for putting the answer together."""
SLOW_S = 0.1
"""A part that lets a caller wait for as long in vain is slow, and not the caller in a hurry."""


def patient(left_s: float, budget_s: float) -> bool:
    """Whether a caller who waits so long for a part with this budget may hold its slowness against it."""
    return left_s >= min(SLOW_S, budget_s)


@dataclass(slots=True)
class Deadline:
    """A moment on the monotonic clock, in seconds; infinity where the caller set none."""

    at_s: float = float("inf")
    in_vain_s: float = 0.0
    """Spent waiting for parts that gave nothing: a delay of theirs, that fewer calls would not shorten."""

    @staticmethod
    def after(seconds: float | None) -> Deadline:
        """The deadline of a caller who waits `seconds` from now (None: for ever)."""
        return Deadline() if seconds is None else Deadline(time.monotonic() + seconds)

    def left_s(self, budget_s: float, share: float = 1.0) -> float:
        """Seconds that a step with this budget may take, of its share of what is left; 0 or less: do not begin."""
        return min(budget_s, share * (self.at_s - time.monotonic() - ANSWER_RESERVE_S))
