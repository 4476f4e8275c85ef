"""Moments as batches of tensors, each seeing exactly what the gateway would have read at that time.

The long strand ends at the last midnight before the moment (or a few days earlier, drawn at random, for jobs run
late), the recent strand at the moment. One stretch of a shopper's history is encoded once for all the moments that
end in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from features.codes import context_codes
from features.schema import HISTORY_EVENTS
from features.transform import pad_sequence
from training.dataset import Log
from training.moments import DAY_MS, Longs, Moments
from training.own_items import OwnItems

STRIDE = HISTORY_EVENTS // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """B moments of S stretches of history; shapes as in `FusionModel`."""

    history_items: Tensor  # int64 (S, L), PADDING behind the end
    history_types: Tensor  # int64 (S, L)
    history_gaps: Tensor  # float32 (S, L)
    segment: Tensor  # int64 (B,), row of the history
    last: Tensor  # int64 (B,), column of the last event that the long strand has seen
    long_mask: Tensor  # float32 (B, 1)
    long_age: Tensor  # float32 (B, 1)
    recent_items: Tensor  # int64 (B, T)
    recent_types: Tensor  # int64 (B, T)
    recent_ages: Tensor  # float32 (B, T)
    own_items: Tensor  # int64 (B, R)
    own_features: Tensor  # float32 (B, R, F)
    codes: Tensor  # int64 (B, 6)
    target_row: Tensor  # int64 (P,)
    target_item: Tensor  # int64 (P,)
    weight: Tensor  # float32 (B,)
    rows: Longs  # (B,), row of each moment


class BatchMaker:
    """Cuts moments of a log into batches."""

    def __init__(self, log: Log, moments: Moments) -> None:
        self.log = log
        self.moments = moments
        self.ends = log.rows_before(moments.shoppers, moments.times_ms)
        self.own = OwnItems.before(log, moments)
        gaps = np.diff(log.times_ms, prepend=log.times_ms[:1]) / 1000.0
        gaps[log.starts[:-1]] = 0.0
        self.gaps = np.maximum(gaps, 0.0).astype(np.float32)

    def batches(
        self,
        *,
        batch_examples: int,
        rng: np.random.Generator | None = None,
        late_share: float = 0.0,
        segment_examples: int = 1 << 30,
        weights: npt.NDArray[np.float32] | None = None,
        label_items: int = 1 << 30,
    ) -> Iterator[Batch]:
        """Every moment once (or, with `segment_examples`, at most so many of each stretch of history).

        Args:
            rng: shuffles and draws late jobs; without it the order is fixed and every job ran at midnight.
            late_share: share of moments whose job ran late.
            weights: float32 (E,) of each moment, 1 by default.
        """
        through = self.moments.times_ms // DAY_MS * DAY_MS
        if rng is not None and late_share:
            late = rng.random(len(through)) < late_share
            through = through - np.where(late, rng.integers(1, 8, len(through)), 0) * DAY_MS
        long_ends = self.log.rows_before(self.moments.shoppers, through)
        for rows in self._groups(long_ends, batch_examples, segment_examples, rng):
            yield self._batch(rows, long_ends[rows], weights, label_items)

    def _groups(
        self, long_ends: Longs, batch_examples: int, segment_examples: int, rng: np.random.Generator | None
    ) -> list[Longs]:
        """Moments of each batch; those of one stretch stand together, and stretches of like length."""
        starts = self.log.starts[self.moments.shoppers]
        windows = _windows(long_ends - starts)
        length = long_ends - starts - windows * STRIDE
        order = rng.permutation(len(starts)) if rng is not None else np.arange(len(starts))
        stretch = self.moments.shoppers * (1 << 24) + windows
        order = order[np.argsort(stretch[order], kind="stable")]
        _, first, inverse = np.unique(stretch[order], return_index=True, return_inverse=True)
        rank = np.arange(len(order)) - first[inverse]
        longest = np.maximum.reduceat(length[order], first) if len(first) else first
        kept = rank < segment_examples
        noise = rng.random(len(longest)) if rng is not None else np.linspace(0, 1, len(longest))
        place = np.lexsort((noise, longest // 25))  # like lengths together, so that little is padded
        position = np.empty(len(place), np.int64)
        position[place] = np.arange(len(place))
        rows = order[kept][np.argsort(position[inverse[kept]], kind="stable")]
        groups = [rows[at : at + batch_examples] for at in range(0, len(rows), batch_examples)]
        if rng is not None:
            groups = [groups[at] for at in rng.permutation(len(groups))]
        return groups

    def _batch(self, rows: Longs, long_ends: Longs, weights: npt.NDArray[np.float32] | None, label_items: int) -> Batch:
        log, moments = self.log, self.moments.take(rows)
        starts, now = log.starts[moments.shoppers], moments.times_ms
        recent = pad_sequence(log.items, log.types, log.times_ms, starts, self.ends[rows], now)
        width = max(int((recent.types > 0).sum(axis=1).max(initial=1)), 1)
        windows = _windows(long_ends - starts)
        begin = starts + windows * STRIDE
        keys, segment = np.unique(np.stack([moments.shoppers, windows], axis=1), axis=0, return_inverse=True)
        segment = segment.reshape(-1)
        last = long_ends - begin - 1
        lengths = np.zeros(len(keys), np.int64)
        np.maximum.at(lengths, segment, last + 1)
        flat, present = _left_aligned(log.starts[keys[:, 0]] + keys[:, 1] * STRIDE, lengths)
        gaps = np.where(present, self.gaps[flat], 0.0)
        gaps[:, 0] = 0.0  # a window's first event has no predecessor in it
        own_items, own_features = self.own.padded(rows, now)
        seen_ms = log.times_ms[np.maximum(long_ends - 1, 0)]
        counts = np.minimum(np.diff(moments.offsets), label_items)
        target_row = np.repeat(np.arange(len(rows)), counts)
        target_at = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        context = context_codes(now, [None] * len(rows), log.vocabularies)
        return Batch(
            history_items=_long(np.where(present, log.items[flat], -1)),
            history_types=_long(np.where(present, log.types[flat], 0)),
            history_gaps=_float(gaps),
            segment=_long(segment),
            last=_long(np.maximum(last, 0)),
            long_mask=_float(last >= 0).unsqueeze(1),
            long_age=_float(np.where(last >= 0, (now - seen_ms) / 1000.0, 0.0)).unsqueeze(1),
            recent_items=_long(recent.items[:, -width:]),
            recent_types=_long(recent.types[:, -width:]),
            recent_ages=_float(recent.ages[:, -width:]),
            own_items=_long(own_items),
            own_features=_float(own_features),
            codes=_long(np.concatenate([log.codes[moments.shoppers], context], axis=1)),
            target_row=_long(target_row),
            target_item=_long(moments.targets[moments.offsets[:-1][target_row] + target_at]),
            weight=_float(np.ones(len(rows)) if weights is None else weights[rows]),
            rows=rows,
        )


def _windows(length: Longs) -> Longs:
    """Number of the stretch of history in which an event prefix of this length is encoded."""
    return np.maximum(-(-(length - HISTORY_EVENTS) // STRIDE), 0)


def _left_aligned(begin: Longs, lengths: Longs) -> tuple[Longs, npt.NDArray[np.bool_]]:
    """Rows (S, max length, at least 1) from each start on, and which of them belong to it."""
    at = np.arange(max(int(lengths.max(initial=1)), 1))
    present = at[None, :] < lengths[:, None]
    return np.where(present, begin[:, None] + at[None, :], 0), present


def _long(values: npt.ArrayLike) -> Tensor:
    return torch.from_numpy(np.asarray(values).astype(np.int64))


def _float(values: npt.ArrayLike) -> Tensor:
    return torch.from_numpy(np.asarray(values).astype(np.float32))
