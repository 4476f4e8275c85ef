"""What the model has to beat: popularity, personal frequency, item-kNN and EASE (arXiv 1905.03375).

Each sees the same events as the model, up to the very moment. Settings are chosen on the validation moments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from features.schema import HISTORY_EVENTS
from features.transform import pad_sequence
from training.dataset import Log
from training.evaluate import Ranker, TestSet, measure
from training.moments import Ints, Moments, popularity_scores
from training.own_items import OwnItems

K = 10
MOST_ITEMS = 6000
"""Item-kNN and EASE hold a dense item by item matrix; beyond this only the items with the most events enter it."""

CHUNK = 512

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    """Item to item weights, float32 (M, M), over the items `kept` (M,)."""

    weights: Floats
    kept: Ints


def popularity_ranker(log: Log, before_ms: int, moments: Moments, half_life_days: float, allowed: Floats) -> Ranker:
    """The same items for everybody: moments that took them before the split, halved with age."""
    scores = popularity_scores(moments.between(0, before_ms), log.item_count, half_life_days)
    best = np.argsort(-np.where(allowed > 0, scores, -1.0), kind="stable")[:K].astype(np.int32)
    return lambda asked: np.tile(best, (len(asked), 1))


def frequency_ranker(log: Log, before_ms: int, moments: Moments, half_life_days: float, allowed: Floats) -> Ranker:
    """What the shopper bought most often, then what is popular."""
    popular = popularity_scores(moments.between(0, before_ms), log.item_count, half_life_days)
    popular = popular / max(popular.max(initial=0.0), 1.0) / 2.0

    def rank(asked: Moments) -> Ints:
        own = OwnItems.before(log, asked)
        owner = np.repeat(np.arange(len(asked)), np.diff(own.offsets))
        known = own.items >= 0
        counts = sparse.csr_matrix(
            (own.counts[known], (owner[known], own.items[known])), shape=(len(asked), log.item_count)
        )
        return _top((part + popular for part in _dense(counts)), allowed)

    return rank


def similarity_ranker(log: Log, similarity: Similarity, half_life_days: float, own: float, allowed: Floats) -> Ranker:
    """The last events, weighted by age, times item to item weights.

    Args:
        own: weight of the events' items themselves, since repeats are allowed.
    """
    weights = np.zeros((log.item_count, len(similarity.kept)), np.float32)
    weights[similarity.kept] = similarity.weights
    weights[similarity.kept, np.arange(len(similarity.kept))] += own

    def rank(asked: Moments) -> Ints:
        events = weighted_events(log, asked, half_life_days)
        return similarity.kept[_top(_dense(events @ weights), allowed[similarity.kept])]

    return rank


def weighted_events(log: Log, moments: Moments, half_life_days: float) -> sparse.csr_matrix:
    """The last `HISTORY_EVENTS` events before each moment as a row over items, halved by age, float32 (E, N)."""
    starts, ends = log.starts[moments.shoppers], log.rows_before(moments.shoppers, moments.times_ms)
    last = pad_sequence(log.items, log.types, log.times_ms, starts, ends, moments.times_ms, HISTORY_EVENTS)
    row, column = np.nonzero(last.items >= 0)
    weights = np.power(0.5, last.ages[row, column] / 86_400.0 / half_life_days, dtype=np.float32)
    return sparse.csr_matrix((weights, (row, last.items[row, column])), shape=(len(moments), log.item_count))


def interactions(log: Log, before_ms: int, by_visit: bool) -> tuple[sparse.csr_matrix, Ints]:
    """Which rows (shoppers, or visits) held which items before the split, and the items that are kept."""
    known = (log.items >= 0) & (log.times_ms < before_ms)
    shoppers = np.repeat(np.arange(len(log.starts) - 1), np.diff(log.starts))
    row = (log.visits if by_visit else shoppers)[known]
    item = log.items[known]
    kept = np.argsort(-np.bincount(item, minlength=log.item_count), kind="stable")[:MOST_ITEMS]
    matrix = sparse.csr_matrix(
        (np.ones(len(item), np.float32), (row, item)), shape=(row.max(initial=0) + 1, log.item_count)
    )
    matrix.data[:] = 1.0
    return matrix[:, np.sort(kept)], np.sort(kept).astype(np.int32)


def item_knn(matrix: sparse.csr_matrix, kept: Ints, *, shrink: float = 10.0, neighbours: int = 200) -> Similarity:
    """Cosine of items' columns, shrunk towards 0 where few rows hold both; the best neighbours of each."""
    both = np.asarray((matrix.T @ matrix).todense(), np.float32)
    norms = np.sqrt(np.diag(both))
    weights = both / (norms[:, None] * norms[None, :] + shrink)
    np.fill_diagonal(weights, 0.0)
    if weights.shape[0] > neighbours:
        least = -np.partition(-weights, neighbours, axis=0)[neighbours]
        weights[weights < least[None, :]] = 0.0
    return Similarity(weights=weights.astype(np.float32), kept=kept)


def ease(matrix: sparse.csr_matrix, kept: Ints, *, ridge: float) -> Similarity:
    """Closed-form linear autoencoder: B = I - P / diag(P), P the inverse of the ridged Gram matrix (eq. 8)."""
    gram = np.asarray((matrix.T @ matrix).todense(), np.float64)
    gram[np.diag_indices_from(gram)] += ridge
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)[None, :]
    np.fill_diagonal(weights, 0.0)
    return Similarity(weights=weights.astype(np.float32), kept=kept)


def measure_baselines(
    log: Log, moments: Moments, validation: TestSet, validation_from_ms: int, test: TestSet, test_from_ms: int
) -> dict[str, dict[str, float]]:
    """Figures of each baseline on the test set, with the settings that are best on the validation set."""
    found: dict[str, dict[str, float]] = {}
    for name, settings in _GRID.items():
        best, best_figure = settings[0], -1.0
        for setting, rank in _rankers(name, settings, log, moments, validation_from_ms, validation):
            figure = measure(validation, rank(validation.moments)).get("ndcg@10", 0.0)
            if figure > best_figure:
                best, best_figure = setting, figure
        for _, rank in _rankers(name, [best], log, moments, test_from_ms, test):
            found[name] = measure(test, rank(test.moments))
    return found


Setting = tuple[float, ...]

_HALF_LIVES = (0.05, 2.0, 30.0, 180.0)
_GRID: dict[str, list[Setting]] = {
    "popularity": [(7.0,), (30.0,), (180.0,)],
    "personal frequency": [(30.0,)],
    "item-kNN": [(by, days, own) for by in (0, 1) for days in _HALF_LIVES for own in (0.0, 0.3)],
    "EASE": [
        (by, ridge, days, own) for by in (0, 1) for ridge in (50.0, 500.0) for days in _HALF_LIVES for own in (0.0, 0.3)
    ],
}
"""Half-life in days; for the last two whether rows are visits, the ridge, and the weight of the items themselves."""


def _rankers(
    name: str, settings: list[Setting], log: Log, moments: Moments, before_ms: int, test: TestSet
) -> Iterator[tuple[Setting, Ranker]]:
    """The baseline under each setting, learned from what lies before the split."""
    allowed = test.allowed.astype(np.float32)
    fitted: dict[Setting, Similarity] = {}
    for setting in settings:
        if name == "popularity":
            yield setting, popularity_ranker(log, before_ms, moments, setting[0], allowed)
        elif name == "personal frequency":
            yield setting, frequency_ranker(log, before_ms, moments, setting[0], allowed)
        else:
            key, (days, own) = setting[:-2], setting[-2:]
            if key not in fitted:
                matrix, kept = interactions(log, before_ms, bool(key[0]))
                fitted[key] = item_knn(matrix, kept) if name == "item-kNN" else ease(matrix, kept, ridge=key[1])
            yield setting, similarity_ranker(log, fitted[key], days, own, allowed)


def _dense(matrix: sparse.csr_matrix | Floats) -> Iterator[Floats]:
    for at in range(0, matrix.shape[0], CHUNK):
        part = matrix[at : at + CHUNK]
        yield part if isinstance(part, np.ndarray) else np.asarray(part.todense(), np.float32)


def _top(parts: Iterator[Floats], allowed: Floats) -> Ints:
    """The best `K` allowed columns of each row, best first, int32."""
    found = [np.zeros((0, min(K, len(allowed))), np.int32)]
    for part in parts:
        scores = np.where(allowed[None, :] > 0, part, -np.inf)
        first = np.argpartition(-scores, min(K, scores.shape[1]) - 1, axis=1)[:, :K]
        order = np.argsort(-np.take_along_axis(scores, first, axis=1), axis=1, kind="stable")
        found.append(np.take_along_axis(first, order, axis=1).astype(np.int32))
    return np.concatenate(found)
