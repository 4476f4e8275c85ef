"""Factors of shoppers and items by implicit alternating least squares."""

from __future__ import annotations

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares  # type: ignore[import-untyped]
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from training.baselines.baseline import Floats, Setting, keep_last
from training.baselines.history import add_own, holdings, weighted_history
from training.evaluate import Scorer, Stage
from training.moments import Moments

ITERATIONS = 15


def fit_als(stage: Stage, setting: Setting) -> Scorer:
    """Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets" (ICDM 2008).

    At a moment the shopper's factors are solved anew from the weighted history, with the items' held fast (eq. 4).
    """
    log = stage.log
    model = als(stage, int(setting["factors"]), setting["ridge"], setting["confidence"])

    def score(asked: Moments) -> Floats:
        events = weighted_history(log, asked, setting)
        with threadpool_limits(1, "blas"):
            shoppers = model.recalculate_user(np.arange(len(asked)), events)
        return add_own(np.asarray(shoppers @ model.item_factors.T, np.float32), events, setting["own"])

    return score


@keep_last
def als(stage: Stage, factors: int, ridge: float, confidence: float) -> AlternatingLeastSquares:
    """The factorisation of what shoppers held; a held item weighs `confidence`, any other 1."""
    with threadpool_limits(1, "blas"):  # a pool of BLAS threads beside its own makes it several times slower
        model = AlternatingLeastSquares(
            factors=factors, regularization=ridge, alpha=confidence, iterations=ITERATIONS, random_state=0
        )
        model.fit(holdings(stage, False).held, show_progress=False)
    return model
