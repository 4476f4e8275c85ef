"""Whether one arm's shoppers click more or less than another's: a test that may be looked at any time.

Shoppers get their arm by a hash, so that whatever else makes them click, and however that changes with the hour, says
nothing of the arm. Of the shoppers who click for the first time, in the order in which they do, each is then of the
treatment with the probability of its share of the traffic, if the arm makes no difference; with clicks `ratio` times as
likely, with `share * ratio / (share * ratio + 1 - share)`. A shopper counts once, with all the pages that led to the
first click, and later clicks change nothing: so the trials are independent, which pages of one shopper are not.

The likelihood ratio against "no difference", averaged over ratios that are lognormal around 1, is a martingale where
there is none: the mixture sequential probability ratio test (Robbins 1970, Statistical methods related to the law of
the iterated logarithm; Johari, Koomen, Pekelis and Walsh 2022, Always valid inference, Operations Research 70), on
counts given their sum as in Lindon and Malek 2022, Anytime-valid inference for multinomial count data, NeurIPS 35. By
Ville's inequality it ever reaches 1 / alpha with a probability of at most alpha, however often it is looked at. Where
the shares change on the way, each first click counts with the share of its time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

SPREAD: Final = 0.25
"""Standard deviation of the logarithm of the ratios that the test looks for; it finds others too, more slowly."""
_GRID: Final = np.linspace(-4.0, 4.0, 41)
_MOST_RATIO: Final = 1_000.0
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FirstClicks:
    """Shoppers who clicked for the first time while the treatment had one share of the two arms' traffic.

    `share` is above 0 and below 1.
    """

    share: float
    treatment: int
    both: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What is known by now of how much likelier the treatment's shoppers click than the control's."""

    ratio: float | None
    """Most likely value; None where there are no clicks."""
    low: float
    high: float
    """Hold the ratio, at every look at once, with probability `1 - alpha`."""
    p_value: float
    """Of "no difference"; 1 / evidence, at most 1."""
    clicked: int
    """Shoppers of both arms that clicked."""


def difference(clicks: Sequence[FirstClicks], alpha: float = 0.05) -> Difference:
    """Ratio of click rates, with an interval and a p-value that hold at any time."""
    both = sum(part.both for part in clicks)
    if not both:
        return Difference(ratio=None, low=1 / _MOST_RATIO, high=_MOST_RATIO, p_value=1.0, clicked=0)
    top = _likeliest(clicks)
    mixed = _mixture(clicks, _GRID * SPREAD)
    bound = mixed + math.log(alpha)
    return Difference(
        ratio=math.exp(top),
        low=math.exp(_edge(lambda at: _likelihood(clicks, at) - bound, top, -math.log(_MOST_RATIO))),
        high=math.exp(_edge(lambda at: _likelihood(clicks, at) - bound, top, math.log(_MOST_RATIO))),
        p_value=min(1.0, math.exp(-mixed)),
        clicked=both,
    )


def p_value_worse(clicks: Sequence[FirstClicks]) -> float:
    """Of "the treatment is not worse", at any time."""
    return min(1.0, math.exp(-_mixture(clicks, _GRID[_GRID < 0] * SPREAD)))


def evidence_path(treated: npt.NDArray[np.bool_], shares: Floats, *, worse: bool = False) -> Floats:
    """Logarithm of the averaged likelihood ratio after each first click, float64 (n,): what is known at every look.

    Args:
        treated: (n,) whether the shopper is of the treatment. shares: (n,) the treatment's share at that time.
        worse: looks for ratios below 1 alone.
    """
    grid = (_GRID[_GRID < 0] if worse else _GRID) * SPREAD
    of_treatment, of_control = _log_ratios(shares[:, None], grid)
    return _averaged(np.where(treated[:, None], of_treatment, of_control).cumsum(axis=0), grid)


def _mixture(clicks: Sequence[FirstClicks], grid: Floats) -> float:
    return float(_averaged(sum((_terms(part, grid) for part in clicks), np.zeros(grid.size)), grid))


def _likelihood(clicks: Sequence[FirstClicks], log_ratio: float) -> float:
    return float(sum(_terms(part, np.array([log_ratio]))[0] for part in clicks))


def _terms(part: FirstClicks, log_ratios: Floats) -> Floats:
    of_treatment, of_control = _log_ratios(part.share, log_ratios)
    terms: Floats = part.treatment * of_treatment + (part.both - part.treatment) * of_control
    return terms


def _log_ratios(share: float | Floats, log_ratios: Floats) -> tuple[Floats, Floats]:
    """Logarithm of likelihood over that of "no difference", of one click in the treatment and in the control."""
    total = np.log(share * np.exp(log_ratios) + 1 - share)
    return log_ratios - total, -total


def _averaged(logs: Floats, grid: Floats) -> Floats:
    """Over the grid in the last axis, weighted by a normal density."""
    weights = -0.5 * (grid / SPREAD) ** 2
    weights = weights - np.log(np.exp(weights).sum())
    logs = logs + weights
    top = logs.max(axis=-1, keepdims=True)
    averaged: Floats = np.log(np.exp(logs - top).sum(axis=-1)) + top[..., 0]
    return averaged


def _likeliest(clicks: Sequence[FirstClicks]) -> float:
    """Logarithm of the ratio of greatest likelihood: where as many treatment clicks are expected as there were."""
    treatment = sum(part.treatment for part in clicks)

    def surplus(log_ratio: float) -> float:
        weights = ((part, part.share * math.exp(log_ratio)) for part in clicks)
        return treatment - sum(part.both * weight / (weight + 1 - part.share) for part, weight in weights)

    most = math.log(_MOST_RATIO)
    if surplus(-most) <= 0:
        return -most
    return _edge(surplus, -most, most)


def _edge(height: Callable[[float], float], inside: float, outside: float) -> float:
    """Where a function that is above 0 at `inside` falls to 0 on the way to `outside`; `outside` if it does not."""
    if height(outside) > 0:
        return outside
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if height(middle) > 0 else (inside, middle)
    return (inside + outside) / 2
