"""Logistic regression by Newton's method, with weights on the features as they come."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from features.inputs.probabilities import Logistic

RIDGE = 1.0
"""Pull of each standardised weight to 0, as of so many examples."""
STEPS = 50


def fit_logistic(features: npt.NDArray[np.floating[Any]], came: npt.NDArray[np.bool_]) -> Logistic:
    """The most likely weights of features (n, F) for what came, (n,); of both kinds there is at least one."""
    values = features.astype(np.float64)
    mean, scale = values.mean(axis=0), values.std(axis=0)
    scale[scale < 1e-9] = 1.0
    design = np.column_stack([(values - mean) / scale, np.ones(len(values))])
    pull = np.full(design.shape[1], RIDGE)
    pull[-1] = 1e-6
    weights = np.zeros(design.shape[1])
    weights[-1] = np.log(came.mean() / (1 - came.mean()))
    loss = _loss(design, came, weights, pull)
    for _ in range(STEPS):
        chances = 1 / (1 + np.exp(-np.clip(design @ weights, -50, 50)))
        gradient = design.T @ (chances - came) + pull * weights
        curvature = (design * (chances * (1 - chances))[:, None]).T @ design + np.diag(pull)
        step = np.linalg.solve(curvature, gradient)
        length = 1.0
        while (reached := _loss(design, came, weights - length * step, pull)) > loss and length > 1e-4:
            length /= 2
        weights, gained, loss = weights - length * step, loss - reached, reached
        if gained < 1e-7 * max(abs(loss), 1.0):
            break
    plain = weights[:-1] / scale
    bias = float(weights[-1] - plain @ mean)
    return Logistic(plain, bias, values.min(axis=0), values.max(axis=0))


def base_rate(came: npt.NDArray[np.bool_], features: int) -> Logistic:
    """The share that came, whatever the features; a success and a failure are added, so it is never 0 or 1."""
    share = (came.sum() + 1) / (came.size + 2)
    nothing = np.zeros(features)
    return Logistic(nothing, float(np.log(share / (1 - share))), nothing, nothing)


def _loss(
    design: npt.NDArray[np.float64],
    came: npt.NDArray[np.bool_],
    weights: npt.NDArray[np.float64],
    pull: npt.NDArray[np.float64],
) -> float:
    logits = design @ weights
    return float(np.logaddexp(0.0, logits).sum() - logits[came].sum() + 0.5 * (pull * weights**2).sum())
