"""What had arrived by each moment: a history holds no event that a request of that moment could not have seen.

An event counts from when it was known (`features.offline.point_in_time`), and within its own session from its arrival.
Mostly what is missing is a moment's last few events, and its history just ends before them. Where events are missing
further back, as after a late backfill, the history is copied without them, as one more shopper of the log; moments
that miss the same events share a copy. Where every event arrived at once, nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from features.schema import EventType
from training.dataset import Log, sort_keys
from training.moments import Longs, Moments

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What E moments could see: the events of their shoppers in `log` before `until_ms`.

    log: the log, copies behind its shoppers. source: (n,) row of the log that each of its rows is, copies included.
    shoppers, until_ms: (E,).
    """

    log: Log
    source: Longs
    shoppers: Longs
    until_ms: Longs

    @property
    def ends(self) -> Longs:
        """(E,) first row of `log` that a moment does not see."""
        return self.log.rows_before(self.shoppers, self.until_ms)


def known_then(log: Log, moments: Moments) -> Known:
    """What had arrived by each moment."""
    shoppers, until_ms = moments.shoppers.copy(), moments.times_ms.copy()
    copies: list[Longs] = []  # the log's rows of each copy
    owners: list[int] = []
    for shopper, asked in _late(log, moments):
        rows = np.arange(log.starts[shopper], log.starts[shopper + 1])
        before, hidden = _hidden(log, rows, moments.times_ms[asked])
        first, missing = hidden.argmax(axis=1), hidden.any(axis=1)
        times_ms = log.times_ms[rows]
        ends_there = missing & (hidden.sum(axis=1) == before.sum(axis=1) - first)
        ends_there &= (first == 0) | (times_ms[np.maximum(first - 1, 0)] < times_ms[first])
        until_ms[asked[ends_there]] = times_ms[first[ends_there]]
        inside = np.flatnonzero(missing & ~ends_there)
        for members, left_out in _shared(before[inside], hidden[inside]):
            shoppers[asked[inside[members]]] = len(log.starts) - 1 + len(copies)
            copies.append(rows[~left_out])
            owners.append(shopper)
    if not copies:
        return Known(log=log, source=np.arange(len(log.items)), shoppers=shoppers, until_ms=until_ms)
    source = np.concatenate([np.arange(len(log.items)), *copies])
    return Known(log=_with_copies(log, source, copies, owners), source=source, shoppers=shoppers, until_ms=until_ms)


def _late(log: Log, moments: Moments) -> Iterator[tuple[int, Longs]]:
    """Shoppers with a moment between an event and when it was known, with all their moments in order of time."""
    if log.arrivals is None:
        return
    order = np.lexsort((moments.times_ms, moments.shoppers))
    keys = sort_keys(moments.shoppers[order], moments.times_ms[order], log.times_ms)
    late = np.flatnonzero(log.arrivals.known_ms > log.times_ms)
    owner = log.shoppers[late]
    begin = np.searchsorted(keys, sort_keys(owner, log.times_ms[late], log.times_ms), side="right")
    end = np.searchsorted(keys, sort_keys(owner, log.arrivals.known_ms[late], log.times_ms), side="left")
    shoppers = np.unique(owner[end > begin])
    starts, ends = (np.searchsorted(moments.shoppers[order], shoppers, side=side) for side in ("left", "right"))
    for shopper, first, last in zip(shoppers.tolist(), starts, ends, strict=True):
        yield shopper, order[first:last]


def _hidden(log: Log, rows: Longs, moments_ms: Longs) -> tuple[Bools, Bools]:
    """For m moments of one shopper and its n rows, (m, n): which lie before the moment, and which of them it missed."""
    assert log.arrivals is not None
    times_ms, sessions = log.times_ms[rows], log.arrivals.sessions[rows]
    at = np.searchsorted(times_ms, moments_ms, side="left")
    there = np.minimum(at, len(rows) - 1)
    session = np.where(times_ms[there] == moments_ms, sessions[there], -1)  # of what happened at the moment
    before = times_ms[None, :] < moments_ms[:, None]
    unknown = log.arrivals.known_ms[rows][None, :] > moments_ms[:, None]
    same = (session[:, None] >= 0) & (sessions[None, :] == session[:, None])
    in_session = same & (log.arrivals.arrival_ms[rows][None, :] <= moments_ms[:, None])
    return before, before & unknown & ~in_session


def _shared(before: Bools, hidden: Bools) -> Iterator[tuple[list[int], Bools]]:
    """Groups of moments, in their order, that one history without some rows serves: (moments, rows left out (n,)).

    What a moment lets a group leave out besides must lie behind the group's others, of which the last sees the most.
    """
    members: list[int] = []
    left_out = np.zeros(before.shape[1], np.bool_)
    for moment in range(len(before)):
        besides = hidden[moment] & ~left_out
        together = left_out | besides
        if members and ((besides & before[members[-1]]).any() or ((together & before[moment]) != hidden[moment]).any()):
            yield members, left_out
            members, together = [], hidden[moment]
        members, left_out = [*members, moment], together
    if members:
        yield members, left_out


def _with_copies(log: Log, source: Longs, copies: list[Longs], owners: list[int]) -> Log:
    """The log with one more shopper for each copy; `source` are the rows of the whole."""
    count = len(log.starts) - 1
    sizes = [len(rows) for rows in copies]
    added = source[len(log.items) :]
    shoppers = np.concatenate([log.shoppers, np.repeat(count + np.arange(len(copies)), sizes)])
    bought = log.types == int(EventType.PURCHASE)
    place = np.cumsum(bought) - 1  # in `purchases`
    again = bought[added]
    copied = log.purchases[place[added[again]]].with_columns(
        shopper=pl.Series(shoppers[len(log.items) :][again], dtype=log.purchases.schema["shopper"])
    )
    return replace(
        log,
        purchases=pl.concat([log.purchases, copied]),
        shopper_ids=[*log.shopper_ids, *(log.shopper_ids[owner] for owner in owners)],
        items=log.items[source],
        types=log.types[source],
        times_ms=log.times_ms[source],
        visits=log.visits[source],
        starts=np.concatenate([log.starts, log.starts[-1] + np.cumsum(sizes)]),
        codes=np.concatenate([log.codes, log.codes[owners]]),
        keys=sort_keys(shoppers, log.times_ms[source], log.times_ms),
        arrivals=None,
    )
