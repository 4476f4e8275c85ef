"""Ranks moments after a point in time over all items, and measures a model and the baselines on the same ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
import torch

from training.batches import BatchMaker
from training.dataset import Log
from training.fusion import FusionModel
from training.metrics import mean_of_shoppers, ndcg_at, recall_at
from training.moments import DAY_MS, Ints, Longs, Moments
from training.own_items import OwnItems
from training.scoring import score_batch

RANKED = 10
"""Places that are measured."""

Ranker = Callable[[Moments], Ints]
"""Moments to the best K items of each, int32 (E, K), best first."""


class MomentChoice(str, Enum):
    """Which moments of a shopper are asked."""

    FIRST = "first"
    EVERY = "every"


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Which moments count, over which items.

    moments: each shopper's first moment, or every one.
    min_item_moments: items that fewer moments before the split hold are neither ranked nor asked for.
    known_shoppers: only shoppers with events before the split.
    sample: at most so many moments, drawn with `seed`.
    """

    moments: MomentChoice = MomentChoice.EVERY
    min_item_moments: int = 0
    known_shoppers: bool = False
    sample: int = 4000
    seed: int = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSet:
    """Moments with at least one target, and the items that may be ranked, bool (N,).

    repeated: for each flat target, whether the shopper had bought it before.
    """

    moments: Moments
    allowed: npt.NDArray[np.bool_]
    repeated: npt.NDArray[np.bool_]


def split_times(moments: Moments, test_from_ms: int | None) -> tuple[int, int]:
    """Where validation and test begin: midnights that leave about a tenth of the moments behind each.

    A log of a day or less is split within the day.
    """
    if test_from_ms is None:
        test_from_ms = _split_time(moments.times_ms, 0.9)
    before = moments.times_ms[moments.times_ms < test_from_ms]
    return (_split_time(before, 0.9) if len(before) else test_from_ms), test_from_ms


def make_test_set(log: Log, moments: Moments, from_ms: int, to_ms: int, protocol: Protocol) -> TestSet:
    """The moments of a span of time that the protocol asks for, with targets that may be ranked alone."""
    before = moments.between(0, from_ms)
    counts = np.bincount(before.targets, minlength=log.item_count)
    allowed = counts >= protocol.min_item_moments
    chosen = moments.between(from_ms, to_ms)
    if protocol.known_shoppers:
        known = log.rows_before(chosen.shoppers, np.full(len(chosen), from_ms)) > log.starts[chosen.shoppers]
        chosen = chosen.take(np.flatnonzero(known))
    if protocol.moments is MomentChoice.FIRST:
        _, first = np.unique(chosen.shoppers, return_index=True)
        chosen = chosen.take(np.sort(first))
    chosen = _keep_targets(chosen, allowed[chosen.targets])
    if len(chosen) > protocol.sample:
        rows = np.random.default_rng(protocol.seed).choice(len(chosen), protocol.sample, replace=False)
        chosen = chosen.take(np.sort(rows))
    return TestSet(moments=chosen, allowed=allowed, repeated=_bought_before(log, chosen))


def measure(test: TestSet, ranked: Ints) -> dict[str, float]:
    """Recall@10 and NDCG@10 over all targets, over repeats and over new items alone.

    A part that no moment has is left out.

    Args:
        ranked: int32 (E, K), best first.
    """
    figures: dict[str, float] = {}
    for part, kept in (("", None), ("repeat_", test.repeated), ("explore_", ~test.repeated)):
        hits, sizes = _hits(test.moments, ranked, kept)
        rows = sizes > 0
        shoppers = test.moments.shoppers[rows]
        if not len(shoppers):
            continue
        figures[f"{part}recall@10"] = mean_of_shoppers(recall_at(hits[rows], sizes[rows]), shoppers)
        figures[f"{part}ndcg@10"] = mean_of_shoppers(ndcg_at(hits[rows], sizes[rows]), shoppers)
    figures["moments"] = float(len(test.moments))
    return figures


def rank_with_model(
    model: FusionModel,
    maker: BatchMaker,
    allowed: npt.NDArray[np.bool_],
    k: int = RANKED,
    *,
    use_long: bool = True,
    use_recent: bool = True,
) -> Ints:
    """The model's best k items at each moment of `maker`, int32 (E, k); as a `Ranker`."""
    ranked = np.zeros((len(maker.moments), min(k, len(allowed))), np.int32)
    refused = torch.from_numpy(~allowed)
    model.eval()
    with torch.inference_mode():
        for batch in maker.batches(batch_examples=256):
            scores = score_batch(model, batch, use_long=use_long, use_recent=use_recent)
            logits = scores.logits.masked_fill(refused, -1e9)
            ranked[batch.rows] = logits.topk(ranked.shape[1]).indices.numpy()
    return ranked


def _hits(moments: Moments, ranked: Ints, kept: npt.NDArray[np.bool_] | None) -> tuple[npt.NDArray[np.bool_], Longs]:
    """Whether each ranked item is a kept target (E, K), and the number of kept targets (E,)."""
    row = np.repeat(np.arange(len(moments)), np.diff(moments.offsets))
    item = moments.targets.astype(np.int64)
    if kept is not None:
        row, item = row[kept], item[kept]
    span = int(max(ranked.max(initial=0), item.max(initial=0))) + 1
    asked = np.arange(len(moments))[:, None] * span + ranked
    hits = np.isin(asked, row * span + item)
    missing = max(RANKED - hits.shape[1], 0)  # a catalogue smaller than the list
    return np.pad(hits, ((0, 0), (0, missing))), np.bincount(row, minlength=len(moments))


def _bought_before(log: Log, moments: Moments) -> npt.NDArray[np.bool_]:
    """For each flat target, whether its shopper had bought it before the moment."""
    own = OwnItems.before(log, moments)
    owner = np.repeat(np.arange(len(moments)), np.diff(own.offsets)) * log.item_count + own.items
    asked = np.repeat(np.arange(len(moments)), np.diff(moments.offsets)) * log.item_count + moments.targets
    return np.isin(asked, owner[own.items >= 0])


def _keep_targets(moments: Moments, kept: npt.NDArray[np.bool_]) -> Moments:
    row = np.repeat(np.arange(len(moments)), np.diff(moments.offsets))[kept]
    counts = np.bincount(row, minlength=len(moments))
    trimmed = Moments(
        shoppers=moments.shoppers,
        times_ms=moments.times_ms,
        targets=moments.targets[kept],
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )
    return trimmed.take(np.flatnonzero(counts > 0))


def _split_time(times_ms: Longs, share: float) -> int:
    if not len(times_ms):
        return 0
    time_ms = int(np.quantile(times_ms, share))
    midnight = time_ms // DAY_MS * DAY_MS
    return midnight if midnight > times_ms.min() else time_ms
