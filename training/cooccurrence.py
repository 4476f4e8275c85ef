"""Where id embeddings start: items that visits hold together stand together.

Fitting then refines a geometry instead of finding one, which saves most of the epochs on a small machine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from training.dataset import Log

LENGTH = 1.0
"""Of every vector: the factors' own lengths differ a hundredfold, and so would the first logits."""

MOST_ITEMS = 50_000
"""A larger catalogue starts from noise: the factorisation would cost more than it saves."""


def cooccurrence_vectors(log: Log, learn: npt.NDArray[np.bool_], dim: int) -> npt.NDArray[np.float32]:
    """Leading factors of the positive pointwise mutual information of items within visits, float32 (N, dim).

    Levy and Goldberg, "Neural word embedding as implicit matrix factorization" (2014), section 4. Items without
    events, and dimensions that the log cannot fill, get small noise.

    Args:
        learn: bool (n,), events that may be learned from.
    """
    count = log.item_count
    noise = np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32) * np.float32(0.05 / dim**0.5)
    known = (log.items >= 0) & learn
    factors = min(dim, count)
    if count > MOST_ITEMS or not known.any():
        return noise
    visit = np.unique(log.visits[known], return_inverse=True)[1]
    held = sparse.csr_matrix((np.ones(len(visit), np.float32), (visit, log.items[known])), (visit.max() + 1, count))
    held.data[:] = 1.0
    both = sparse.coo_matrix(held.T @ held)
    totals = np.asarray(held.sum(axis=0)).ravel()
    expected = totals[both.row] * totals[both.col] / held.shape[0]
    information = np.log(np.maximum(both.data / np.maximum(expected, 1e-9), 1e-9))
    kept = (both.row != both.col) & (information > 0) & (both.data > 1)
    if not kept.any():
        return noise
    matrix = sparse.csr_matrix((information[kept], (both.row[kept], both.col[kept])), (count, count))
    vectors = _leading_factors(matrix, factors)
    vectors *= LENGTH / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    noise[:, :factors] += vectors.astype(np.float32)
    return noise


def _leading_factors(matrix: sparse.csr_matrix, factors: int) -> npt.NDArray[np.float64]:
    """Eigenvectors of a symmetric matrix, each times the root of its eigenvalue, by block power iteration."""
    basis = np.random.default_rng(0).normal(size=(matrix.shape[0], min(factors + 16, matrix.shape[0])))
    for _ in range(8):
        basis, _ = np.linalg.qr(np.asarray(matrix @ basis) + 1e-9 * basis)
    values, turned = np.linalg.eigh(basis.T @ np.asarray(matrix @ basis))
    best = np.argsort(-values)[:factors]
    return np.asarray((basis @ turned[:, best]) * np.sqrt(np.maximum(values[best], 0.0)))
