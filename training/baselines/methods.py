"""Every baseline by name, with the settings that it is tuned over.

The grids are small on purpose: a few values of what matters, chosen from on a validation stage, never on a test.
"""

from __future__ import annotations

from collections.abc import Mapping

from training.baselines.baseline import FOREVER_DAYS, Baseline, Setting, backed_off, crossed, settings
from training.baselines.baskets import fit_tifu_knn
from training.baselines.factors import fit_als
from training.baselines.neighbours import fit_user_knn, fit_vsknn
from training.baselines.popularity import fit_personal_frequency, fit_popularity
from training.baselines.similarity import fit_ease, fit_item_knn
from training.baselines.transitions import fit_transitions

_RECENCY: list[Setting] = [
    *settings(event_decay=[1.0], half_life_days=[0.05, 3.0, 60.0]),
    *settings(event_decay=[0.8, 0.9], half_life_days=[FOREVER_DAYS]),
]
"""How the shopper's own events fade: with time, or with every event behind them."""

_OWN = settings(own=[0.0, 0.3, 1.0])

_ALL = (
    Baseline(
        name="popularity",
        fit=fit_popularity,
        grid=settings(half_life_days=[7.0, 30.0, 180.0, FOREVER_DAYS]),
    ),
    Baseline(
        name="all-time popularity",
        fit=fit_popularity,
        grid=settings(half_life_days=[FOREVER_DAYS]),
    ),
    Baseline(
        name="personal frequency",
        fit=backed_off(fit_personal_frequency),
        grid=settings(others=[0.0, 0.1, 1.0]),
    ),
    Baseline(
        name="item-kNN",
        fit=backed_off(fit_item_knn),
        grid=crossed(settings(by_visit=[0, 1], shrink=[10.0]), _RECENCY, _OWN),
    ),
    Baseline(
        name="user-kNN",
        fit=backed_off(fit_user_knn),
        grid=crossed(settings(neighbours=[20, 100]), _RECENCY, _OWN),
    ),
    Baseline(
        name="implicit ALS",
        fit=backed_off(fit_als),
        grid=crossed(settings(factors=[64, 128], confidence=[1.0, 10.0], ridge=[10.0]), _RECENCY, _OWN),
    ),
    Baseline(
        name="EASE",
        fit=backed_off(fit_ease),
        grid=crossed(settings(by_visit=[0, 1], ridge=[50.0, 500.0]), _RECENCY, _OWN),
    ),
    Baseline(
        name="transitions",
        fit=backed_off(fit_transitions),
        grid=crossed(
            settings(
                window=[3, 10],
                distance_decay=[0.8],
                column_power=[0.25, 0.5],
                position_decay=[0.4, 0.6, 0.8],
            ),
            _OWN,
        ),
    ),
    Baseline(
        name="VSKNN",
        fit=backed_off(fit_vsknn),
        grid=settings(sample=[1000, 5000], neighbours=[100, 500], idf=[0.0, 1.0]),
    ),
    Baseline(
        name="TIFU-kNN",
        fit=backed_off(fit_tifu_knn),
        grid=settings(
            groups=[3, 20],
            basket_decay=[0.95, 1.0],
            group_decay=[0.8, 0.95],
            share=[0.3, 0.5, 0.7],
            neighbours=[100],
        ),
    ),
)

BASELINES: Mapping[str, Baseline] = {baseline.name: baseline for baseline in _ALL}
