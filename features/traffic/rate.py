"""A share with its 95% interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

Z: Final = 1.959964
"""Two-sided 95% of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` of `total`, with the 95% interval of the share that they are drawn from (Wilson 1927)."""

    count: int
    total: int
    share: float
    low: float
    high: float

    @staticmethod
    def of(count: int, total: int, trials: int | None = None) -> Rate:
        """Nothing of nothing is a share of 0 that may be anything.

        Args:
            trials: how many of the `total` are independent, at least 1; all if not given.
        """
        if not total:
            return Rate(0, 0, 0.0, 0.0, 1.0)
        share, z2, drawn = count / total, Z * Z, total if trials is None else trials
        middle = (share + z2 / (2 * drawn)) / (1 + z2 / drawn)
        half = Z / (1 + z2 / drawn) * math.sqrt(share * (1 - share) / drawn + z2 / (4 * drawn * drawn))
        return Rate(count, total, share, max(0.0, middle - half), min(1.0, middle + half))

    def __str__(self) -> str:
        if not self.total:
            return "-"
        return f"{self.share:.2%} ({self.low:.2%} to {self.high:.2%})"
