"""What follows what: each event votes for the items that came soon after it in other streams."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from training.baselines.baseline import Floats, Setting, keep_last
from training.baselines.history import add_own, dense, item_rows, last_events
from training.evaluate import Scorer, Stage
from training.moments import Moments
from training.transitions import transition_counts

VOTERS = 50
ROW_POWER = 0.5


def fit_transitions(stage: Stage, setting: Setting) -> Scorer:
    """Decayed windowed item-to-item transitions; at a moment the last `VOTERS` events vote.

    A first-order Markov chain (Rendle et al., "Factorizing personalized Markov chains", WWW 2010) whose steps
    skip. An event weighs `position_decay` to the power of the events behind it; `own` weighs the events' items.
    """
    log = stage.log
    counts = transitions(stage, int(setting["window"]), setting["distance_decay"])
    weights = _damped(counts, setting["column_power"])

    def score(asked: Moments) -> Floats:
        last = last_events(log, asked, VOTERS)
        row, column = np.nonzero(last.items >= 0)
        voices = setting["position_decay"] ** (VOTERS - 1 - column)
        events = item_rows(voices, row, last.items[row, column], log, asked)
        return add_own(dense(events @ weights), events, setting["own"])

    return score


@keep_last
def transitions(stage: Stage, window: int, distance_decay: float) -> sparse.csr_matrix:
    """`transition_counts` of what a stage may learn from."""
    return transition_counts(stage.log, stage.learn, window, distance_decay)


def _damped(counts: sparse.csr_matrix, column_power: float) -> sparse.csr_matrix:
    """Counts over powers of what their row and their column hold in all: common items neither shout nor soak up."""
    rows = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1e-9) ** -ROW_POWER
    columns = np.maximum(np.asarray(counts.sum(axis=0)).ravel(), 1e-9) ** -column_power
    return (sparse.diags(rows) @ counts @ sparse.diags(columns)).tocsr().astype(np.float32)
