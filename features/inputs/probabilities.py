"""From what is known of a shopper and an item to a chance: logistic models that training fits and the gateway applies.

They travel with a release, as `probabilities.json`, and are applied with NumPy alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from features.schema import EVENT_NAMES, OUTCOME_FEATURES, RETURN_FEATURES, EventType

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Logistic:
    """1 / (1 + exp(-(features @ weights + bias))).

    weights: float64 (F,). lowest, highest: float64 (F,), features that it was fitted on; what lies beyond is taken as
    the nearest of them, since nothing is known there.
    """

    weights: Floats
    bias: float
    lowest: Floats
    highest: Floats

    def probability(self, features: npt.NDArray[np.floating[Any]]) -> Floats:
        """float64 (n,) of features (n, F)."""
        logits = np.clip(features.astype(np.float64), self.lowest, self.highest) @ self.weights + self.bias
        chances: Floats = 1.0 / (1.0 + np.exp(-np.clip(logits, -50.0, 50.0)))
        return chances

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "weights": self.weights.tolist(),
            "bias": self.bias,
            "lowest": self.lowest.tolist(),
            "highest": self.highest.tolist(),
        }

    @staticmethod
    def from_json(document: Mapping[str, Any], features: int) -> Logistic:
        """The inverse of `to_json`.

        Raises:
            ValueError: there are not as many weights or bounds as features, or one is not finite.
        """
        rows = np.array([document[name] for name in ("weights", "lowest", "highest")], np.float64)
        bias = float(document["bias"])
        if rows.shape != (3, features) or not np.isfinite([*rows.ravel(), bias]).all():
            raise ValueError(f"expected {features} finite weights and bounds, and a bias")
        return Logistic(rows[0], bias, rows[1], rows[2])


@dataclass(frozen=True, slots=True)
class Probabilities:
    """What a release can say of chances.

    outcomes: by event type, over `OUTCOME_FEATURES`; types that hardly occur are left out.
    comes_back: over `RETURN_FEATURES`; None where the log was too short to learn it from.
    """

    outcomes: Mapping[EventType, Logistic] = field(default_factory=dict)
    comes_back: Logistic | None = None

    def to_json(self) -> dict[str, Any]:
        """The content of `probabilities.json`."""
        return {
            "outcomes": {kind.name.lower(): model.to_json() for kind, model in self.outcomes.items()},
            "return": None if self.comes_back is None else self.comes_back.to_json(),
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Probabilities:
        """The inverse of `to_json`.

        Raises:
            ValueError, KeyError, TypeError: it is another document.
        """
        comes_back = document["return"]
        return Probabilities(
            outcomes={
                EVENT_NAMES[name]: Logistic.from_json(model, len(OUTCOME_FEATURES))
                for name, model in document["outcomes"].items()
            },
            comes_back=None if comes_back is None else Logistic.from_json(comes_back, len(RETURN_FEATURES)),
        )
