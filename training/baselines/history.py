"""What the baselines read of a log: who held what, what a shopper did before a moment, and the best of sparse rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from features.inputs.transform import Sequence, pad_sequence
from features.schema import HISTORY_EVENTS
from training.arrivals import known_then
from training.baselines.baseline import Floats, Setting, keep_last
from training.dataset import Log
from training.evaluate import Stage
from training.moments import DAY_MS, Longs, Moments


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """Which rows (shoppers or visits) held which items, oldest row first by the time of its last event.

    held: float32 (R, N), 0 or 1. shoppers: (R,) whose row it is.
    """

    held: sparse.csr_matrix
    shoppers: Longs


@keep_last
def holdings(stage: Stage, by_visit: bool) -> Holdings:
    """What each shopper, or each visit, held among the events that may be learned from."""
    log = stage.log
    events = np.flatnonzero(stage.learn & (log.items >= 0))
    shopper = log.shoppers[events]
    groups, row = np.unique(log.visits[events] if by_visit else shopper, return_inverse=True)
    last_ms = np.zeros(len(groups), np.int64)
    owner = np.zeros(len(groups), np.int64)
    last_ms[row] = log.times_ms[events]  # events are in order of time: the last one stays
    owner[row] = shopper
    order = np.argsort(last_ms, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    held = sparse.csr_matrix(
        (np.ones(len(events), np.float32), (place[row], log.items[events])), shape=(len(groups), log.item_count)
    )
    held.data[:] = 1.0
    return Holdings(held=held, shoppers=owner[order])


def last_events(log: Log, moments: Moments, length: int = HISTORY_EVENTS) -> Sequence:
    """The shopper's last events that were known at each moment, newest last."""
    known = known_then(log, moments)
    seen, starts = known.log, known.log.starts[known.shoppers]
    return pad_sequence(seen.items, seen.types, seen.times_ms, starts, known.ends, moments.times_ms, length)


def weighted_history(log: Log, moments: Moments, setting: Setting) -> sparse.csr_matrix:
    """The last `HISTORY_EVENTS` events as a row over items, float32 (E, N).

    An event weighs `event_decay` to the power of the events behind it, halved with every `half_life_days` of its age.
    """
    last = last_events(log, moments)
    row, column = np.nonzero(last.items >= 0)
    behind = last.items.shape[1] - 1 - column
    age_days = last.ages[row, column] * (1000.0 / DAY_MS)
    weights = setting["event_decay"] ** behind * 0.5 ** (age_days / setting["half_life_days"])
    return item_rows(weights, row, last.items[row, column], log, moments)


def item_rows(weights: object, row: Longs, item: object, log: Log, moments: Moments) -> sparse.csr_matrix:
    """Flat weights of items as one row for each moment, float32 (E, N); an item's weights are summed."""
    return sparse.csr_matrix(
        (np.asarray(weights, np.float32), (row, item)), shape=(len(moments), log.item_count), dtype=np.float32
    )


def add_own(scores: Floats, events: sparse.csr_matrix, own: float) -> Floats:
    """Raises the shopper's own items, as `events` (E, N) weighs them: the first by `own` times the highest score."""
    if own and events.nnz:
        peaks = scores.max(axis=1)
        most = np.asarray(events.max(axis=1).toarray()).ravel()
        row = np.repeat(np.arange(len(scores)), np.diff(events.indptr))
        shares = events.data / np.where(most > 0, most, 1.0)[row]  # a weight of long ago is next to nothing
        scores[row, events.indices] += (np.where(peaks > 0, peaks, 1.0)[row] * own * shares).astype(np.float32)
    return scores


def best_of_rows(matrix: sparse.csr_matrix, k: int) -> sparse.csr_matrix:
    """The k highest stored values of each row; of equal ones those in the first columns."""
    matrix = matrix.tocsr()
    matrix.sort_indices()
    counts = np.diff(matrix.indptr)
    if counts.max(initial=0) <= k:
        return matrix
    row = np.repeat(np.arange(matrix.shape[0]), counts)
    order = np.lexsort((-matrix.data, row))
    place = np.arange(len(order)) - np.repeat(matrix.indptr[:-1], counts)
    return _kept(matrix, np.sort(order[place < k]), row)


def newest_of_rows(matrix: sparse.csr_matrix, k: int) -> sparse.csr_matrix:
    """The k stored values of each row in its last columns."""
    matrix = matrix.tocsr()
    matrix.sort_indices()
    counts = np.diff(matrix.indptr)
    row = np.repeat(np.arange(matrix.shape[0]), counts)
    from_end = np.repeat(matrix.indptr[1:], counts) - np.arange(len(row))
    return _kept(matrix, np.flatnonzero(from_end <= k), row)


def without_self(matrix: sparse.csr_matrix, moments: Moments, shoppers: Longs) -> sparse.csr_matrix:
    """Moments to rows, float (E, R), without the rows that are the moment's own shopper's."""
    matrix = matrix.tocsr()
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return _kept(matrix, np.flatnonzero(shoppers[matrix.indices] != moments.shoppers[row]), row)


def _kept(matrix: sparse.csr_matrix, entries: Longs, row: Longs) -> sparse.csr_matrix:
    counts = np.bincount(row[entries], minlength=matrix.shape[0])
    bounds = np.concatenate([[0], np.cumsum(counts)])
    return sparse.csr_matrix((matrix.data[entries], matrix.indices[entries], bounds), shape=matrix.shape)


def dense(matrix: sparse.csr_matrix) -> Floats:
    """The same as an array, float32."""
    return np.asarray(matrix.toarray(), np.float32)
