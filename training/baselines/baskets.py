"""Next baskets from how often and how lately a shopper, and shoppers alike, had each item: TIFU-kNN."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from features.schema import EventType
from training.baselines.baseline import Floats, Setting, keep_last
from training.baselines.history import best_of_rows, dense, without_self
from training.evaluate import Scorer, Stage, events_before
from training.moments import Longs, Moments


def fit_tifu_knn(stage: Stage, setting: Setting) -> Scorer:
    """Temporal item frequency with nearest neighbours (arXiv 2006.00556).

    A shopper's baskets stand in `groups` of equal size. A basket fades by `basket_decay` within its group, a group by
    `group_decay`; a shopper's vector is the mean over groups of the mean over baskets. `share` of it and
    the rest of the mean of the `neighbours` at the least Euclidean distance make the scores; only shoppers who
    share an item are neighbours. Baskets are the purchases of a visit, or its events where nothing is purchased.
    """
    log = stage.log
    shape = (int(setting["groups"]), setting["basket_decay"], setting["group_decay"])
    known = shopper_vectors(stage, *shape)
    squares = np.asarray(known.multiply(known).sum(axis=1)).ravel()
    columns = known.T.tocsr()
    shoppers = np.arange(known.shape[0])

    def score(asked: Moments) -> Floats:
        row, event = events_before(log, asked)
        basket = _in_baskets(stage)[event]
        own = _vectors(stage, row[basket], event[basket], len(asked), *shape)
        near = without_self(own @ columns, asked, shoppers)
        near.data = 2.0 * near.data - squares[near.indices]  # the distance, up to sign and the shopper's own length
        nearest = best_of_rows(near, int(setting["neighbours"]))
        counts = np.maximum(np.diff(nearest.indptr), 1)
        nearest.data = np.repeat((1.0 - setting["share"]) / counts, np.diff(nearest.indptr)).astype(np.float32)
        return dense(setting["share"] * own + nearest @ known)

    return score


@keep_last
def shopper_vectors(stage: Stage, groups: int, basket_decay: float, group_decay: float) -> sparse.csr_matrix:
    """Each shopper's vector from the baskets that may be learned from, float32 (S, N)."""
    log = stage.log
    event = np.flatnonzero(stage.learn & (log.items >= 0) & _in_baskets(stage))
    row = log.shoppers[event]
    return _vectors(stage, row, event, len(log.starts) - 1, groups, basket_decay, group_decay)


def _in_baskets(stage: Stage) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which events of the log are of baskets, (n,)."""
    bought = stage.log.types == EventType.PURCHASE
    return bought if bought[stage.learn].any() else np.ones_like(bought)


def _vectors(
    stage: Stage, row: Longs, event: Longs, rows: int, groups: int, basket_decay: float, group_decay: float
) -> sparse.csr_matrix:
    """One vector for each row, float32 (rows, N), from flat events in order of row and time."""
    log = stage.log
    visit = log.visits[event]
    opens = np.append(True, (np.diff(row) != 0) | (np.diff(visit) != 0))[: len(row)]
    basket = np.cumsum(opens) - 1
    row_of = row[opens]
    baskets = np.bincount(row_of, minlength=rows)  # (rows,)
    behind = np.cumsum(baskets)[row_of] - 1 - np.arange(len(row_of))
    of_shopper = baskets[row_of]
    group_count = np.minimum(groups, of_shopper)
    group = behind * group_count // of_shopper  # 0 is the newest; sizes differ by one at most
    group_start = -(-group * of_shopper // group_count)
    group_size = -(-(group + 1) * of_shopper // group_count) - group_start
    weights = group_decay**group * basket_decay ** (behind - group_start) / (group_count * group_size)
    _, once = np.unique(basket * log.item_count + log.items[event], return_index=True)
    return sparse.csr_matrix(
        (weights[basket[once]].astype(np.float32), (row[once], log.items[event[once]])), shape=(rows, log.item_count)
    )
