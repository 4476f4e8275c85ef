"""Stretches of shoppers' histories as tensors: one is encoded once for all the moments that end in it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from features.inputs.transform import Floats
from training.dataset import Log
from training.moments import Longs


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretches:
    """Left-aligned stretches of events, each read once, and where B moments end in them.

    items, types: int64 (S, L), -1 and 0 behind a row's end. gaps: float32 (S, L) seconds since the event before, 0 at
    a row's first. row, last: int64 (B,), stretch and column of the last event that a moment sees.
    """

    items: Tensor
    types: Tensor
    gaps: Tensor
    row: Tensor
    last: Tensor

    def to(self, device: str) -> Stretches:
        """The same on a device."""
        return Stretches(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def event_gaps_s(log: Log) -> Floats:
    """float32 (n,) seconds since the shopper's event before, 0 at the first."""
    gaps = np.diff(log.times_ms, prepend=log.times_ms[:1]) / 1000.0
    gaps[log.starts[:-1]] = 0.0
    return np.maximum(gaps, 0.0).astype(np.float32)


def cut_stretches(log: Log, gaps_s: Floats, starts: Longs, ends: Longs, size: int, shared: bool) -> Stretches:
    """The newest `size` events in each [start, end), or at least half as many of a stretch that is shared."""
    stride = size // 2 if shared else 1
    windows = windows_of(ends - starts, size, stride)
    begin = starts + windows * stride
    first, row = np.unique(begin, return_inverse=True)
    last = ends - begin - 1
    lengths = np.zeros(len(first), np.int64)
    np.maximum.at(lengths, row, last + 1)
    at = np.arange(max(int(lengths.max(initial=1)), 1))
    present = at[None, :] < lengths[:, None]
    cells = np.where(present, first[:, None] + at[None, :], 0)
    gaps = np.where(present, gaps_s[cells], 0.0)
    gaps[:, 0] = 0.0
    return Stretches(
        items=long_tensor(np.where(present, log.items[cells], -1)),
        types=long_tensor(np.where(present, log.types[cells], 0)),
        gaps=float_tensor(gaps),
        row=long_tensor(row.reshape(-1)),
        last=long_tensor(np.maximum(last, 0)),
    )


def windows_of(length: Longs, size: int, stride: int) -> Longs:
    """Number of the stretch, each `stride` further on, in which an event prefix of this length is encoded."""
    return np.maximum(-(-(length - size) // stride), 0)


def long_tensor(values: npt.ArrayLike) -> Tensor:
    """int64."""
    return torch.from_numpy(np.asarray(values).astype(np.int64))


def float_tensor(values: npt.ArrayLike) -> Tensor:
    """float32."""
    return torch.from_numpy(np.asarray(values).astype(np.float32))
