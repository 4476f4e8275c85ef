"""What like shoppers, and like visits, held: user-kNN and VSKNN."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from features.schema import RECENT_EVENTS
from training.baselines.baseline import Floats, Setting
from training.baselines.history import (
    add_own,
    best_of_rows,
    dense,
    holdings,
    item_rows,
    last_events,
    newest_of_rows,
    weighted_history,
    without_self,
)
from training.evaluate import Scorer, Stage
from training.moments import Ints, Longs, Moments

STEP = 0.1
"""What a neighbour's vote loses with every place that its newest shared item lies back."""


def fit_user_knn(stage: Stage, setting: Setting) -> Scorer:
    """What the `neighbours` shoppers with the highest cosine to the weighted history held, each by its cosine.

    Herlocker et al., "An algorithmic framework for performing collaborative filtering" (SIGIR 1999), on what was
    held instead of ratings. The shopper is no neighbour of its own.
    """
    log = stage.log
    known = holdings(stage, False)
    lengths = np.sqrt(np.maximum(np.diff(known.held.indptr), 1)).astype(np.float32)
    unit = (sparse.diags(1.0 / lengths) @ known.held).T.tocsr()

    def score(asked: Moments) -> Floats:
        events = weighted_history(log, asked, setting)
        alike = without_self(events @ unit, asked, known.shoppers)
        nearest = best_of_rows(alike, int(setting["neighbours"]))
        return add_own(dense(nearest @ known.held), events, setting["own"])

    return score


def fit_vsknn(stage: Stage, setting: Setting) -> Scorer:
    """Vector multiplication session-kNN (V-SKNN of arXiv 1803.09587; idf as in 1910.12781).

    Of the `sample` newest visits that share an item with the last events, the `neighbours` with the highest cosine
    vote for their items. In the cosine an item of n weighs its place / n; a neighbour's vote falls by a tenth for each
    place that its newest shared item lies back; an item's votes are raised by `idf` times its inverse frequency.
    """
    log = stage.log
    known = holdings(stage, True)
    held = known.held
    items_of = held.T.tocsr()
    lengths = np.sqrt(np.maximum(np.diff(held.indptr), 1))
    counts = np.maximum(np.diff(items_of.indptr), 1)
    rarity = (1.0 + setting["idf"] * np.log(max(held.shape[0], 1) / counts)).astype(np.float32)

    def score(asked: Moments) -> Floats:
        last = last_events(log, asked, RECENT_EVENTS)
        row, column = np.nonzero(last.items >= 0)
        item = last.items[row, column]
        held_counts = np.bincount(row, minlength=len(asked))
        place = np.arange(len(row)) - (np.cumsum(held_counts) - held_counts)[row]  # 0 is the oldest
        behind = held_counts[row] - 1 - place
        newest = _newest_of_items(row, item, log.item_count)
        row, item, place, behind = row[newest], item[newest], place[newest], behind[newest]
        weights = item_rows((place + 1) / held_counts[row], row, item, log, asked)
        alike = without_self(weights @ items_of, asked, known.shoppers)
        alike.data /= lengths[alike.indices]
        nearest = best_of_rows(newest_of_rows(alike, int(setting["sample"])), int(setting["neighbours"]))
        # The sum of 2^-behind over the shared items tells the newest of them: its power of two leads.
        powers = sparse.csr_matrix((0.5**behind, (row, item)), shape=weights.shape) @ items_of
        shared = nearest.astype(bool).multiply(powers).tocsr()
        shared.data = np.maximum(1.0 + STEP * np.floor(np.log2(shared.data)), 0.0)
        votes = nearest.multiply(shared).tocsr().astype(np.float32)
        scores = dense(votes @ held)
        scores *= rarity
        return scores

    return score


def _newest_of_items(row: Longs, item: Ints, item_count: int) -> Longs:
    """Of flat events, oldest first, the last one of each item in a row."""
    _, from_end = np.unique((row * item_count + item)[::-1], return_index=True)
    return np.sort(len(row) - 1 - from_end)
