"""Moments as batches of tensors, each seeing exactly what the gateway would have read at that time.

The long strand ends at the last midnight before the moment (or a few days earlier, drawn at random, for jobs run
late), the recent strand at the moment. One stretch of a shopper's history is encoded once for all the moments that
end in it; while fitting, stretches overlap by half, so that some moments see a shorter one than they would when served.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from torch import Tensor

from features.inputs.codes import context_codes
from features.inputs.transform import Floats, pad_sequence
from features.offline.history import PurchaseHistory
from features.schema import HISTORY_EVENTS, RECENT_EVENTS
from training import covisitation
from training.arrivals import Known, known_then
from training.dataset import Log
from training.fusion import SESSION_S, FusionModel
from training.item_trend import ItemTrend
from training.moments import DAY_MS, Longs, Moments
from training.own_items import OwnItems
from training.stretches import Stretches, cut_stretches, event_gaps_s, float_tensor, long_tensor, windows_of
from training.transitions import COMING, VOTERS, WINDOW

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """B moments; all ages in seconds."""

    history: Stretches
    recent: Stretches
    long_mask: Tensor  # float32 (B, 1)
    long_age: Tensor  # float32 (B, 1)
    short_mask: Tensor  # float32 (B, 1)
    recent_age: Tensor  # float32 (B, 1)
    session_events: Tensor  # float32 (B, 1)
    unseen_events: Tensor  # float32 (B, 1)
    seen_items: Tensor  # int64 (B, T), newest last; T is 0 where no term asks for them
    seen_types: Tensor  # int64 (B, T)
    seen_ages: Tensor  # float32 (B, T)
    coming_items: Tensor | None  # int64 (B, C), learned items that came next, -1 for none; while fitting
    own_items: Tensor  # int64 (B, R)
    own_features: Tensor  # float32 (B, R, F)
    own_trends: Tensor | None  # float32 (B, R, TREND_DAYS), at each moment, while fitting; else the model has its own
    codes: Tensor  # int64 (B, 6)
    target_row: Tensor  # int64 (P,)
    target_item: Tensor  # int64 (P,)
    weight: Tensor  # float32 (B,)
    rows: Longs  # (B,), row of each moment

    def to(self, device: str) -> Batch:
        """The same on a device."""
        if device == "cpu":
            return self
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: part.to(device) for name, part in parts.items() if name != "rows" and part is not None}
        return Batch(**(parts | moved))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Moments with what is looked up once for all of them: what was known, where it ends, and their own items.

    ends: (E,) rows of `known.log`. gaps_s: float32 (n,), time between its events.
    """

    moments: Moments
    known: Known
    ends: Longs
    gaps_s: Floats
    own: OwnItems | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Batches that are made as they are asked for. groups: the moments of each."""

    maker: BatchMaker
    asked: Asked
    groups: list[Longs]
    long_ends: Longs
    weights: npt.NDArray[np.float32] | None
    label_items: int
    learn: npt.NDArray[np.bool_] | None
    shared: bool

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[Batch]:
        for rows in self.groups:
            yield self.maker.cut(self, rows)


class BatchMaker:
    """Cuts moments of a log into batches."""

    def __init__(self, log: Log, *, own: bool = True, seen: int = RECENT_EVENTS, overlap: bool = False) -> None:
        """Without `own` a batch has no own items; it has at most `seen` seen items of a moment.

        With `overlap` the recent strand begins where the history does, else where the long strand ends.
        """
        self.log = log
        self.seen = seen
        self.overlap = overlap
        self.purchases = PurchaseHistory.of(log.purchases) if own else None
        self.gaps_s = event_gaps_s(log)

    @staticmethod
    def of(model: FusionModel, log: Log, *, use_long: bool = True) -> BatchMaker:
        """Makes what a model reads and no more; without `use_long`, as for shoppers whom no job has encoded."""
        pairs = model.use_transitions or model.use_covisitation
        seen = RECENT_EVENTS if model.use_repeat else max(VOTERS, WINDOW, covisitation.VOTERS) if pairs else 0
        return BatchMaker(log, own=model.use_repeat, seen=seen, overlap=model.overlap or not use_long)

    def ask(self, moments: Moments, trend: ItemTrend | None = None) -> Asked:
        """Looks up what the batches of these moments need; to learn from them, with the items' `trend`."""
        known = known_then(self.log, moments)
        purchases, gaps_s = self.purchases, self.gaps_s
        if known.log is not self.log:
            purchases = None if purchases is None else PurchaseHistory.of(known.log.purchases)
            gaps_s = event_gaps_s(known.log)
        own = None if purchases is None else OwnItems.before(known, moments.times_ms, purchases, trend)
        return Asked(moments=moments, known=known, ends=known.ends, gaps_s=gaps_s, own=own)

    def batches(
        self,
        asked: Asked,
        *,
        batch_examples: int,
        rng: np.random.Generator | None = None,
        late_share: float = 0.0,
        drop_long: float = 0.0,
        segment_examples: int = 1 << 30,
        weights: npt.NDArray[np.float32] | None = None,
        label_items: int = 1 << 30,
        learn: npt.NDArray[np.bool_] | None = None,
    ) -> Batches:
        """Every moment once (or, with `segment_examples`, at most so many of each stretch of history).

        Args:
            rng: shuffles, draws late jobs and lets moments share stretches; without it the order is fixed, every job
                ran at midnight, and each moment sees all that it would when served.
            late_share: share of moments whose job ran late.
            drop_long: share of moments of a shopper whom no job has encoded yet.
            weights: float32 (E,) of each moment, 1 by default.
            label_items: at most so many targets of a moment.
            learn: bool (n,), events that are learned from, for batches to learn from.
        """
        moments, known = asked.moments, asked.known
        through = moments.times_ms // DAY_MS * DAY_MS
        if rng is not None and late_share:
            late = rng.random(len(through)) < late_share
            through = through - np.where(late, rng.integers(1, 8, len(through)), 0) * DAY_MS
        long_ends = np.minimum(known.log.rows_before(known.shoppers, through), asked.ends)
        if rng is not None and drop_long:
            dropped = rng.random(len(through)) < drop_long
            long_ends = np.where(dropped, known.log.starts[known.shoppers], long_ends)
        return Batches(
            maker=self,
            asked=asked,
            groups=_groups(asked, long_ends, batch_examples, segment_examples, rng),
            long_ends=long_ends,
            weights=weights,
            label_items=label_items,
            learn=learn,
            shared=rng is not None,
        )

    def cut(self, batches: Batches, rows: Longs) -> Batch:
        """The batch of some moments, rows of `batches.asked.moments`."""
        asked, long_ends = batches.asked, batches.long_ends[rows]
        log, moments, ends = asked.known.log, asked.moments.take(rows), asked.ends[rows]
        shoppers, now = asked.known.shoppers[rows], moments.times_ms
        starts = log.starts[shoppers]
        has_long = long_ends > starts
        since = starts if self.overlap else long_ends  # where there is no long strand, it ends at the start
        has_recent = ends > since
        session = np.maximum(ends - log.rows_before(shoppers, now - int(SESSION_S * 1000) + 1), 0)
        unseen = ends - np.where(has_long, long_ends, starts)
        seen = pad_sequence(log.items, log.types, log.times_ms, starts, ends, now, self.seen)
        width = int((seen.types > 0).sum(axis=1).max(initial=0))
        nothing = np.zeros((len(rows), 0, 0))
        own_items, own_features, own_trends = (
            asked.own.padded(rows, now) if asked.own else (np.zeros((len(rows), 0)), nothing, nothing)
        )
        counts = np.minimum(np.diff(moments.offsets), batches.label_items)
        target_row = np.repeat(np.arange(len(rows)), counts)
        target_at = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        context = context_codes(now, [None] * len(rows), log.vocabularies)
        return Batch(
            history=cut_stretches(log, asked.gaps_s, starts, long_ends, HISTORY_EVENTS, batches.shared),
            recent=cut_stretches(log, asked.gaps_s, since, ends, RECENT_EVENTS, batches.shared),
            long_mask=_column(has_long),
            long_age=_column(np.where(has_long, now - log.times_ms[np.maximum(long_ends - 1, 0)], 0) / 1000.0),
            short_mask=_column(has_recent),
            recent_age=_column(np.where(ends > starts, now - log.times_ms[np.maximum(ends - 1, 0)], 0) / 1000.0),
            session_events=_column(np.minimum(session, RECENT_EVENTS)),
            unseen_events=_column(np.minimum(unseen, RECENT_EVENTS)),
            seen_items=long_tensor(seen.items[:, seen.items.shape[1] - width :]),
            seen_types=long_tensor(seen.types[:, seen.types.shape[1] - width :]),
            seen_ages=float_tensor(seen.ages[:, seen.ages.shape[1] - width :]),
            coming_items=None if batches.learn is None else _coming(asked.known, shoppers, ends, batches.learn),
            own_items=long_tensor(own_items),
            own_features=float_tensor(own_features),
            own_trends=float_tensor(own_trends) if own_trends.shape[-1] else None,
            codes=long_tensor(np.concatenate([log.codes[shoppers], context], axis=1)),
            target_row=long_tensor(target_row),
            target_item=long_tensor(moments.targets[moments.offsets[:-1][target_row] + target_at]),
            weight=float_tensor(np.ones(len(rows)) if batches.weights is None else batches.weights[rows]),
            rows=rows,
        )


def _groups(
    asked: Asked,
    long_ends: Longs,
    batch_examples: int,
    segment_examples: int,
    rng: np.random.Generator | None,
) -> list[Longs]:
    """Moments of each batch; those of one stretch stand together, and stretches of like length."""
    shoppers = asked.known.shoppers
    starts = asked.known.log.starts[shoppers]
    lengths = asked.ends - starts
    windows = windows_of(long_ends - starts, HISTORY_EVENTS, HISTORY_EVENTS // 2)
    order = rng.permutation(len(windows)) if rng is not None else np.arange(len(windows))
    stretch = shoppers * (1 << 24) + windows
    order = order[np.argsort(stretch[order], kind="stable")]
    _, first, inverse = np.unique(stretch[order], return_index=True, return_inverse=True)
    kept = np.arange(len(order)) - first[inverse] < segment_examples
    longest = np.maximum.reduceat(lengths[order] - windows[order], first) if len(first) else first
    noise = rng.random(len(longest)) if rng is not None else np.linspace(0, 1, len(longest))
    place = np.lexsort((noise, np.floor(4 * np.log2(longest + 1.0))))  # like lengths together: little is padded
    position = np.empty(len(place), np.int64)
    position[place] = np.arange(len(place))
    rows = order[kept][np.argsort(position[inverse[kept]], kind="stable")]
    groups = [rows[at : at + batch_examples] for at in range(0, len(rows), batch_examples)]
    if rng is not None:
        groups = [groups[at] for at in rng.permutation(len(groups))]
    return groups


def _coming(known: Known, shoppers: Longs, ends: Longs, learn: npt.NDArray[np.bool_]) -> Tensor:
    """Items of the next events, (B, up to `COMING`), -1 for those that are not learned from."""
    left = known.log.starts[shoppers + 1] - ends
    ahead = np.arange(min(COMING, int(left.max(initial=0))))
    there = ahead < left[:, None]
    rows = np.where(there, ends[:, None] + ahead, 0)
    return long_tensor(np.where(there & learn[known.source[rows]], known.log.items[rows], -1))


def _column(values: npt.ArrayLike) -> Tensor:
    return float_tensor(values).unsqueeze(1)
