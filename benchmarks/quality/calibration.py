"""Whether a method's probabilities mean what they say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 15

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """Of bins of equally many probabilities, lowest first: what was said, what came, and how many, (bins,) each."""

    said: Floats
    came: Floats
    counts: npt.NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of what was said from what came (arXiv 1706.04599, section 2),
        over bins of equal counts, since most probabilities here are small."""
        return float((self.counts * np.abs(self.said - self.came)).sum() / self.counts.sum())


def reliability(
    probabilities: npt.NDArray[np.float32],
    hits: npt.NDArray[np.bool_],
    basket_sizes: npt.NDArray[np.int64],
    bins: int = BINS,
) -> Reliability:
    """Probabilities (E, K) against hits (E, K).

    A probability is that of one target drawn from the moment's basket, so a hit counts 1 / basket size.
    """
    order = np.argsort(probabilities, axis=None, kind="stable")
    said = probabilities.reshape(-1).astype(np.float64)[order]
    came = (hits / basket_sizes[:, None]).reshape(-1)[order]
    parts = [part for part in np.array_split(np.arange(len(order)), bins) if len(part)]
    return Reliability(
        said=np.array([said[part].mean() for part in parts]),
        came=np.array([came[part].mean() for part in parts]),
        counts=np.array([len(part) for part in parts], np.int64),
    )
