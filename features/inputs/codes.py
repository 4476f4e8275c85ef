"""Attributes of the shopper and of the moment as small integer codes, 0 where unknown.

A release carries the vocabularies that its model was trained on; training and the gateway call the same two functions.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.schema import AGE_EDGES, CONTEXT_CODES, SHOPPER_CODES

Ints = npt.NDArray[np.int32]

HOUR_CODES = 25
"""Size of an embedding over hours: code 1 is midnight to one."""
WEEKDAY_CODES = 8
"""Size of an embedding over weekdays: code 1 is Monday."""
AGE_CODES = len(AGE_EDGES) + 2
MOST_CODES = 255
"""Of one vocabulary."""

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeVocabularies:
    """Value to code, 1 and up, most frequent first. Values are compared in lower case."""

    gender: Mapping[str, int]
    country: Mapping[str, int]
    device: Mapping[str, int]

    def grown(self, newer: CodeVocabularies) -> CodeVocabularies:
        """This one with what another one knows beyond it behind its own codes, which stay."""
        return CodeVocabularies(
            gender=grown_codes(self.gender, newer.gender),
            country=grown_codes(self.country, newer.country),
            device=grown_codes(self.device, newer.device),
        )


def grown_codes(codes: Mapping[str, int], newer: Iterable[str]) -> dict[str, int]:
    """Codes 1 to n, and those of the newer values that have none yet behind them, in their order."""
    added = [value for value in newer if value not in codes]
    return {**codes, **{value: len(codes) + place for place, value in enumerate(added, 1)}}


def fit_codes(values: Sequence[str | None], *, min_count: int = 20) -> dict[str, int]:
    """Codes of the values that occur at least `min_count` times, at most `MOST_CODES` of them."""
    present = [value.lower() for value in values if value]
    if not present:
        return {}
    names, counts = np.unique(np.array(present), return_counts=True)
    order = np.lexsort((names, -counts))[:MOST_CODES]
    return {str(names[row]): code for code, row in enumerate(order, 1) if counts[row] >= min_count}


def shopper_codes(
    age: Sequence[float | None],
    gender: Sequence[str | None],
    country: Sequence[str | None],
    vocabularies: CodeVocabularies,
) -> Ints:
    """int32 (n, 3), columns `schema.SHOPPER_CODES`, for n shoppers' attributes (None: unknown)."""
    codes = zip(
        [bisect_right(AGE_EDGES, years) + 1 if years and 0 < years < math.inf else 0 for years in age],
        _codes(gender, vocabularies.gender),
        _codes(country, vocabularies.country),
        strict=True,
    )
    return np.array(list(codes), np.int32).reshape(-1, len(SHOPPER_CODES))


def context_codes(time_ms: npt.NDArray[np.int64], device: Sequence[str | None], vocabularies: CodeVocabularies) -> Ints:
    """int32 (n, 3), columns `schema.CONTEXT_CODES`.

    Args:
        time_ms: (n,) the moment; hour and weekday are UTC's, as events do not say what the shopper's clock showed.
        device: n device names, None where unknown.
    """
    codes = np.empty((time_ms.size, len(CONTEXT_CODES)), np.int32)
    codes[:, 0] = time_ms % _DAY_MS // _HOUR_MS + 1
    codes[:, 1] = (time_ms // _DAY_MS + _EPOCH_WEEKDAY) % 7 + 1
    codes[:, 2] = _codes(device, vocabularies.device)
    return codes


def _codes(values: Sequence[str | None], vocabulary: Mapping[str, int]) -> list[int]:
    return [vocabulary.get(value.lower(), 0) if value else 0 for value in values]
