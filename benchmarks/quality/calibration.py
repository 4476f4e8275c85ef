"""Whether a method's probabilities mean what they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
    return reliability_curve(probabilities.reshape(-1), (hits / basket_sizes[:, None]).reshape(-1), bins)


def reliability_curve(
    probabilities: npt.NDArray[np.floating[Any]], came: npt.NDArray[Any], bins: int = BINS
) -> Reliability:
    """Probabilities (n,) against what came, (n,), from 0 to 1."""
    order = np.argsort(probabilities, kind="stable")
    said, came = probabilities.astype(np.float64)[order], came.astype(np.float64)[order]
    parts = [part for part in np.array_split(np.arange(len(order)), bins) if len(part)]
    return Reliability(
        said=np.array([said[part].mean() for part in parts]),
        came=np.array([came[part].mean() for part in parts]),
        counts=np.array([len(part) for part in parts], np.int64),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """How good probabilities are.

    count: of them. rate: share that came. said: their mean. error: of `Reliability`. log_loss: mean, in nats.
    base_log_loss: that of saying the rate each time. auc: chance that what came was held likelier than what did not.
    """

    count: int
    rate: float
    said: float
    error: float
    log_loss: float
    base_log_loss: float
    auc: float

    @property
    def explained(self) -> float:
        """Share of the base rate's log loss that is gone: 0 where the probabilities tell nothing, 1 at the truth."""
        return 1 - self.log_loss / self.base_log_loss if self.base_log_loss > 0 else 0.0


def forecast(probabilities: Floats, came: npt.NDArray[np.bool_]) -> Forecast:
    """Figures of probabilities (n,) against what came, (n,)."""
    rate = float(came.mean())
    base = np.full(len(came), rate)
    return Forecast(
        count=len(came),
        rate=rate,
        said=float(probabilities.mean()),
        error=reliability_curve(probabilities, came).error,
        log_loss=_log_loss(probabilities, came),
        base_log_loss=_log_loss(base, came) if 0 < rate < 1 else 0.0,
        auc=_auc(probabilities, came),
    )


def _log_loss(probabilities: Floats, came: npt.NDArray[np.bool_]) -> float:
    kept = np.clip(probabilities, 1e-12, 1 - 1e-12)
    return float(-np.log(np.where(came, kept, 1 - kept)).mean())


def _auc(probabilities: Floats, came: npt.NDArray[np.bool_]) -> float:
    """By the rank sum of Mann and Whitney, ties halved; not a number where all or nothing came."""
    _, place, counts = np.unique(probabilities, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    hits = int(came.sum())
    pairs = hits * (len(came) - hits)
    return float((ranks[came].sum() - hits * (hits + 1) / 2) / pairs) if pairs else float("nan")
