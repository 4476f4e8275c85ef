"""What a baseline is: a way to fit and the settings to choose from; what settings share is learned once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import product
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from training.evaluate import Scorer, Stage
from training.moments import Moments, popularity_scores

Floats = npt.NDArray[np.float32]

Setting = Mapping[str, float]
"""Values by name. Half-lives are in days; a yes or no is 1 or 0."""

Fit = Callable[[Stage, Setting], Scorer]

FOREVER_DAYS = 1e9
"""A half-life that does not fade anything."""

BACK_OFF_DAYS = 30.0
BACK_OFF = 1e-6
"""Weight of popularity where a method says nothing, as a share of its own highest score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A method of recommending. `fit` learns from a stage's events alone; `grid` is what may be chosen from.

    Settings that share what is learned stand beside each other in the grid. A setting named `own` weighs the
    shopper's own items; where they are masked, only its 0 is tried.
    """

    name: str
    fit: Fit
    grid: Sequence[Setting]


def settings(**axes: Sequence[float]) -> list[Setting]:
    """Every combination; the first name changes slowest."""
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def crossed(*grids: Sequence[Setting]) -> list[Setting]:
    """Every setting of the first grid with every one of the next, and so on."""
    return [{name: value for part in parts for name, value in part.items()} for parts in product(*grids)]


Learned = TypeVar("Learned")
Structure = ParamSpec("Structure")

_kept: dict[str, tuple[Stage, tuple[Any, ...], Any]] = {}


def keep_last(
    learn: Callable[Concatenate[Stage, Structure], Learned],
) -> Callable[Concatenate[Stage, Structure], Learned]:
    """Keeps what was learned last, so that settings that differ elsewhere share it, until `forget`."""
    name = f"{learn.__module__}.{learn.__qualname__}"

    @wraps(learn)
    def learn_once(stage: Stage, /, *structure: Structure.args, **named: Structure.kwargs) -> Learned:
        key = (*structure, *sorted(named.items()))
        kept = _kept.get(name)
        if kept is None or kept[0] is not stage or kept[1] != key:
            _kept.pop(name, None)  # not two at once: they may be large
            kept = _kept[name] = (stage, key, learn(stage, *structure, **named))
        learned: Learned = kept[2]
        return learned

    return learn_once


def forget() -> None:
    """Lets go of everything that `keep_last` holds."""
    _kept.clear()


def backed_off(fit: Fit) -> Fit:
    """The method, with what is popular of late wherever it says nothing: for unknown shoppers, and behind its items."""

    @wraps(fit)
    def fit_backed_off(stage: Stage, setting: Setting) -> Scorer:
        scorer = fit(stage, setting)
        popular = popularity_scores(stage.moments, stage.log.item_count, BACK_OFF_DAYS)
        share = (popular / max(popular.max(initial=0.0), 1e-9)).astype(np.float32)

        def score(asked: Moments) -> Floats:
            scores = scorer(asked)
            peaks = np.abs(scores).max(axis=1, keepdims=True)
            scores += np.where(peaks > 0, peaks, 1.0).astype(np.float32) * np.float32(BACK_OFF) * share
            return scores

        return score

    return fit_backed_off
