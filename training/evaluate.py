"""What a method may learn from and what it is then asked; ranking over all items, and figures of a ranking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from features.schema import EventType
from training.arrivals import known_then
from training.dataset import Log
from training.metrics import hits_of, mean_of_shoppers, ndcg_at, recall_at
from training.moments import DAY_MS, Ints, Longs, Moments

RANKED = 20
"""Places that are measured."""

CHUNK = 256
"""Moments that are scored at once."""

Scorer = Callable[[Moments], npt.NDArray[np.float32]]
"""Moments to the score of every item, float32 (E, N), higher is better. Any method of recommending is one."""


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

    repeated: for each flat target, whether the shopper had it before: what moments are of, a purchase or any event.
    seen_masked: items of the shopper's own events before the moment are not ranked.
    """

    moments: Moments
    allowed: npt.NDArray[np.bool_]
    repeated: npt.NDArray[np.bool_]
    seen_masked: bool = False

    def sample(self, most: int, seed: int = 11) -> TestSet:
        """The same with at most so many moments, drawn at random."""
        return self.take(_drawn(len(self.moments), most, seed))

    def take(self, rows: Longs) -> TestSet:
        """The same with these moments, ascending."""
        kept = np.isin(np.repeat(np.arange(len(self.moments)), np.diff(self.moments.offsets)), rows)
        return replace(self, moments=self.moments.take(rows), repeated=self.repeated[kept])


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One exam: what a method may learn from, and the moments that it is then asked.

    learn: bool (n,), events of the log that may be learned from. At a moment that is asked, a method also sees every
    event of that shopper that had arrived before it, learned from or not.
    moments: the moments among them, in order of time.
    """

    log: Log
    learn: npt.NDArray[np.bool_]
    moments: Moments
    test: TestSet


def split_times(moments: Moments, test_from_ms: int | None) -> tuple[int, int]:
    """Where validation and test begin: midnights that leave about a tenth of the moments behind each.

    A log of a day or less is split within the day.
    """
    if test_from_ms is None:
        test_from_ms = _split_time(moments.times_ms, 0.9)
    before = moments.times_ms[moments.times_ms < test_from_ms]
    return (_split_time(before, 0.9) if len(before) else test_from_ms), test_from_ms


def stage_by_time(log: Log, moments: Moments, from_ms: int, to_ms: int, protocol: Protocol) -> Stage:
    """Learns from what lies before a point in time; is asked the moments from there on that the protocol names.

    What was bought before but not known then, as after a backfill, is neither learned nor asked for; nor are
    targets asked for that may not be ranked.
    """
    before = moments.known_by(from_ms)
    counts = np.bincount(before.targets, minlength=log.item_count)
    allowed = counts >= protocol.min_item_moments
    chosen = moments.between(from_ms, to_ms)
    if protocol.known_shoppers:
        known = log.rows_before(chosen.shoppers, np.full(len(chosen), from_ms)) > log.starts[chosen.shoppers]
        chosen = chosen.take(np.flatnonzero(known))
    if protocol.moments is MomentChoice.FIRST:
        _, first = np.unique(chosen.shoppers, return_index=True)
        chosen = chosen.take(np.sort(first))
    chosen = keep_targets(chosen, allowed[chosen.targets])
    chosen = chosen.take(_drawn(len(chosen), protocol.sample, protocol.seed))
    test = TestSet(moments=chosen, allowed=allowed, repeated=had_before(log, chosen, bought=moments.of == "purchases"))
    return Stage(log=log, learn=log.known_by(from_ms), moments=before, test=test)


def _drawn(count: int, most: int, seed: int) -> Longs:
    """Numbers of at most `most` among so many, drawn at random, ascending."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def measure(test: TestSet, ranked: Ints) -> dict[str, float]:
    """Recall@10 and NDCG@10 over all targets, over repeats and over new items alone.

    A part that no moment has is left out.

    Args:
        ranked: int32 (E, K), best first.
    """
    figures: dict[str, float] = {}
    for part, kept in (("", None), ("repeat_", test.repeated), ("explore_", ~test.repeated)):
        hits, sizes = target_hits(test.moments, ranked, kept)
        rows = sizes > 0
        shoppers = test.moments.shoppers[rows]
        if not len(shoppers):
            continue
        figures[f"{part}recall@10"] = mean_of_shoppers(recall_at(hits[rows], sizes[rows]), shoppers)
        figures[f"{part}ndcg@10"] = mean_of_shoppers(ndcg_at(hits[rows], sizes[rows]), shoppers)
    figures["moments"] = float(len(test.moments))
    return figures


def rank(scorer: Scorer, stage: Stage, k: int = RANKED) -> Ints:
    """The best k items at each moment of the stage's test among those that may be ranked, int32 (E, k), best first.

    Of those that are ranked, equal scores stand in the order of item indices; which of equals just miss it is open.
    """
    test = stage.test
    k = min(k, len(test.allowed))
    ranked = np.zeros((len(test.moments), k), np.int32)
    for at in tqdm(range(0, len(ranked), CHUNK), desc="ranking", unit="chunk", leave=False, disable=None):
        asked = test.moments.take(np.arange(at, min(at + CHUNK, len(ranked))))
        scores = rankable(stage, asked, scorer(asked))
        first = np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1)
        order = np.argsort(-np.take_along_axis(scores, first, axis=1), axis=1, kind="stable")
        ranked[at : at + len(asked)] = np.take_along_axis(first, order, axis=1)
    return ranked


def rankable(stage: Stage, asked: Moments, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The scores (E, N) of moments, minus infinity where the stage's test does not rank the item."""
    kept = np.where(stage.test.allowed[None, :], scores, -np.inf)
    if stage.test.seen_masked:
        kept[seen_items(stage.log, asked)] = -np.inf
    return kept


def events_before(log: Log, moments: Moments) -> tuple[Longs, Longs]:
    """Moment and event of every known item that a moment's shopper had an event on before it, in order of time.

    Without what had not arrived by then: `training.arrivals`.
    """
    known = known_then(log, moments)
    starts, ends = known.log.starts[known.shoppers], known.ends
    counts = ends - starts
    row = np.repeat(np.arange(len(moments)), counts)
    event = known.source[np.arange(len(row)) + np.repeat(starts - (np.cumsum(counts) - counts), counts)]
    with_item = log.items[event] >= 0
    return row[with_item], event[with_item]


def seen_items(log: Log, moments: Moments) -> tuple[Longs, Longs]:
    """Row and item of everything that each moment's shopper had an event on before it, with repetitions."""
    row, event = events_before(log, moments)
    return row, log.items[event].astype(np.int64)


def target_hits(
    moments: Moments, ranked: Ints, kept: npt.NDArray[np.bool_] | None
) -> tuple[npt.NDArray[np.bool_], Longs]:
    """Whether each ranked item is a kept target (E, at least `RANKED`), and the number of kept targets (E,).

    Args:
        kept: of each flat target, whether it counts; all by default.
    """
    row = np.repeat(np.arange(len(moments)), np.diff(moments.offsets))
    chosen = slice(None) if kept is None else kept
    sizes = np.bincount(row[chosen], minlength=len(moments))
    hits = hits_of(ranked, moments.targets[chosen], np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    missing = max(RANKED - hits.shape[1], 0)  # a catalogue smaller than the list
    return np.pad(hits, ((0, 0), (0, missing))), sizes


def had_before(log: Log, moments: Moments, *, bought: bool) -> npt.NDArray[np.bool_]:
    """For each flat target, whether its shopper was known to have had an event on it before; or `bought` it."""
    parts = [np.zeros(0, np.bool_)]
    for at in range(0, len(moments), CHUNK):
        part = moments.take(np.arange(at, min(at + CHUNK, len(moments))))
        row, event = events_before(log, part)
        if bought:
            purchase = log.types[event] == EventType.PURCHASE
            row, event = row[purchase], event[purchase]
        asked = np.repeat(np.arange(len(part)), np.diff(part.offsets)) * log.item_count + part.targets
        parts.append(np.isin(asked, row * log.item_count + log.items[event]))
    return np.concatenate(parts)


def keep_targets(moments: Moments, kept: npt.NDArray[np.bool_]) -> Moments:
    """The moments with these of their flat targets, without those that have none left."""
    row = np.repeat(np.arange(len(moments)), np.diff(moments.offsets))[kept]
    counts = np.bincount(row, minlength=len(moments))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    trimmed = replace(moments, targets=moments.targets[kept], offsets=offsets)
    return trimmed.take(np.flatnonzero(counts > 0))


def _split_time(times_ms: Longs, share: float) -> int:
    if not len(times_ms):
        return 0
    time_ms = int(np.quantile(times_ms, share))
    midnight = time_ms // DAY_MS * DAY_MS
    return midnight if midnight > times_ms.min() else time_ms
