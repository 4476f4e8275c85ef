"""Item to item weights times the shopper's last events: item-kNN and EASE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import lapack
from tqdm import tqdm

from training.baselines.baseline import Floats, Setting, keep_last
from training.baselines.history import add_own, best_of_rows, dense, holdings, weighted_history
from training.dataset import Log
from training.evaluate import Scorer, Stage
from training.moments import Ints, Moments

NEIGHBOURS = 200
ITEMS_AT_ONCE = 512

MOST_ITEMS = 6000
"""EASE inverts a dense item by item matrix; beyond this only the items that most rows held enter it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseSimilarity:
    """Item to item weights, float32 (M, M), over the items `kept` (M,)."""

    weights: Floats
    kept: Ints


def fit_item_knn(stage: Stage, setting: Setting) -> Scorer:
    """Cosine of the items' columns, shrunk where few rows hold both; the `NEIGHBOURS` best of each item.

    Sarwar et al., "Item-based collaborative filtering recommendation algorithms" (WWW 2001).
    """
    weights = cosines(stage, bool(setting["by_visit"]), setting["shrink"])
    return _similarity_scorer(stage.log, lambda events: dense(events @ weights), setting)


def fit_ease(stage: Stage, setting: Setting) -> Scorer:
    """The embarrassingly shallow autoencoder (arXiv 1905.03375)."""
    similarity = ease(stage, bool(setting["by_visit"]), setting["ridge"])
    kept, count = similarity.kept, stage.log.item_count

    def vote(events: sparse.csr_matrix) -> Floats:
        votes = np.asarray(events[:, kept] @ similarity.weights, np.float32)
        if len(kept) == count:
            return votes
        scores = np.repeat(votes.min(axis=1, keepdims=True), count, axis=1)  # items left out stand last
        scores[:, kept] = votes
        return scores

    return _similarity_scorer(stage.log, vote, setting)


@keep_last
def cosines(stage: Stage, by_visit: bool, shrink: float) -> sparse.csr_matrix:
    """What a row's item says for each column's, float32 (N, N): shared rows / (root of the product of both + shrink).

    Each column keeps its `NEIGHBOURS` highest, without itself.
    """
    held = holdings(stage, by_visit).held
    columns = held.T.tocsr()
    norms = np.sqrt(np.diff(columns.indptr)).astype(np.float32)
    parts = []
    for at in tqdm(range(0, len(norms), ITEMS_AT_ONCE), desc="item-kNN", leave=False, mininterval=0.5):
        both = (columns[at : at + ITEMS_AT_ONCE] @ held).tocoo()
        row, other = both.row + at, both.col
        different = row != other
        cosine = both.data / (norms[row] * norms[other] + np.float32(shrink))
        kept = (cosine[different], (both.row[different], other[different]))
        parts.append(best_of_rows(sparse.csr_matrix(kept, shape=both.shape), NEIGHBOURS))
    return sparse.vstack(parts).T.tocsr()


@keep_last
def ease(stage: Stage, by_visit: bool, ridge: float) -> DenseSimilarity:
    """Closed-form weights: B = I - P / diag(P), P the inverse of the ridged Gram matrix (eq. 8)."""
    gram, kept = _gram(stage, by_visit)
    factor, _ = lapack.dpotrf(gram + ridge * np.eye(len(gram)), lower=1)
    half, _ = lapack.dpotri(factor, lower=1)  # by Cholesky: a third of the work of a general inverse
    inverse = half + np.tril(half, -1).T
    weights = -inverse / np.diag(inverse)[None, :]
    np.fill_diagonal(weights, 0.0)
    return DenseSimilarity(weights=weights.astype(np.float32), kept=kept)


@keep_last
def _gram(stage: Stage, by_visit: bool) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float64]], Ints]:
    """Rows that hold both items of a pair, over the items that most rows hold, and these items."""
    held = holdings(stage, by_visit).held
    counts = np.asarray(held.sum(axis=0)).ravel()
    kept = np.sort(np.argsort(-counts, kind="stable")[:MOST_ITEMS]).astype(np.int32)
    part = held[:, kept]
    return np.asarray((part.T @ part).toarray(), np.float64), kept


def _similarity_scorer(log: Log, vote: Callable[[sparse.csr_matrix], Floats], setting: Setting) -> Scorer:
    """What the weighted events vote for, and `own` for the events' items themselves."""

    def score(asked: Moments) -> Floats:
        events = weighted_history(log, asked, setting)
        return add_own(vote(events), events, setting["own"])

    return score
