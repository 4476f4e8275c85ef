"""A method's answers to a stage: the best items of every moment, and how probable it holds them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.evaluate import RANKED, Scorer, Stage, rank, rankable
from training.moments import Ints, Moments

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """ranked: int32 (E, K), best first, -1 for none. probabilities: float32 (E, K) of them, if the method has any."""

    ranked: Ints
    probabilities: Floats | None


def answer(scorer: Scorer, stage: Stage, *, gives_probabilities: bool) -> Answers:
    """Ranks every moment of the stage's test.

    Args:
        gives_probabilities: the scores are logits: their softmax over what may be ranked are probabilities.
    """
    if not gives_probabilities:
        return Answers(ranked=rank(scorer, stage), probabilities=None)
    noting = _Noting(scorer, stage)
    ranked = rank(noting, stage)
    return Answers(ranked=ranked, probabilities=np.concatenate([*noting.highest, np.zeros((0, ranked.shape[1]))]))


class _Noting:
    """The scorer, which notes the highest probabilities of each moment; in order they are those of the best items."""

    def __init__(self, scorer: Scorer, stage: Stage) -> None:
        self.scorer, self.stage = scorer, stage
        self.highest: list[Floats] = []

    def __call__(self, asked: Moments) -> Floats:
        scores = self.scorer(asked)
        logits = rankable(self.stage, asked, scores)
        k = min(RANKED, logits.shape[1])
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        best = -np.sort(np.partition(-shifted, k - 1, axis=1)[:, :k], axis=1)
        self.highest.append((best / shifted.sum(axis=1, keepdims=True)).astype(np.float32))
        return scores
