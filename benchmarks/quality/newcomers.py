"""Shoppers of whom nothing was learned, as a model meets them: nothing known, then their first events one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from benchmarks.quality.task import Task
from training.dataset import Log, sort_keys
from training.evaluate import Stage, TestSet
from training.moments import Ints, Longs, Moments

HELD_OUT = 0.4
"""Share of shoppers that are held out."""
SEED = 5

Bools = npt.NDArray[np.bool_]


def held_out(log: Log) -> Bools:
    """Which shoppers are held out, bool (S,), drawn with `SEED`."""
    return np.random.default_rng(SEED).random(len(log.shopper_ids)) < HELD_OUT


def without(stage: Stage, held: Bools) -> Stage:
    """The stage without anything of the held-out shoppers."""
    return replace(
        stage,
        learn=stage.learn & ~held[stage.log.shoppers],
        moments=stage.moments.take(np.flatnonzero(~held[stage.moments.shoppers])),
        test=stage.test.take(np.flatnonzero(~held[stage.test.moments.shoppers])),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Newcomers:
    """Visits of held-out shoppers that begin with at least `most` events and end with a purchase.

    log: of the first `most` events of each visit, one shopper a visit. shoppers: (E,) who they are in the task's log.
    times_ms: (E, most + 1) when 0, 1, … `most` events have been seen: at the next event.
    targets: what was bought, `shoppers` its visits' rows. seen: of each flat target, whether it is among the first
    `most` events.
    """

    log: Log
    shoppers: Longs
    times_ms: Longs
    targets: Moments
    seen: Bools

    @staticmethod
    def of(task: Task, held: Bools, most: int) -> Newcomers:
        """From the moments that the task's final stage asks."""
        log, moments = task.log, task.final.test.moments
        moments = moments.take(np.flatnonzero(held[moments.shoppers]))
        ends = log.rows_before(moments.shoppers, moments.times_ms)  # the cart or purchase that ends what was before
        begins = np.searchsorted(log.visits, log.visits[np.minimum(ends, len(log.visits) - 1)])
        enough = np.flatnonzero(ends - begins >= most)
        moments, begins = moments.take(enough), begins[enough]
        rows = begins[:, None] + np.arange(most + 1)  # (E, most + 1)
        events = rows[:, :most].reshape(-1)
        visit = np.repeat(np.arange(len(moments)), most)
        flat = np.repeat(np.arange(len(moments)), np.diff(moments.offsets))
        first: Ints = log.items[rows[:, :most]]
        return Newcomers(
            log=replace(
                log,
                purchases=log.purchases.clear(),
                shopper_ids=[log.shopper_ids[shopper] for shopper in moments.shoppers],
                items=log.items[events],
                types=log.types[events],
                times_ms=log.times_ms[events],
                visits=visit,
                starts=np.arange(len(moments) + 1) * most,
                codes=log.codes[moments.shoppers],
                keys=sort_keys(visit, log.times_ms[events], log.times_ms[events]),
                arrivals=None,
            ),
            shoppers=moments.shoppers,
            times_ms=log.times_ms[rows],
            targets=replace(moments, shoppers=np.arange(len(moments))),
            seen=(first[flat] == moments.targets[:, None]).any(axis=1),
        )

    def asked_after(self, events: int, stage: Stage) -> Stage:
        """The visits, asked after so many events."""
        moments = replace(self.targets, times_ms=self.times_ms[:, events])
        test = TestSet(moments=moments, allowed=stage.test.allowed, repeated=self.seen)
        return replace(stage, log=self.log, learn=np.zeros(len(self.log.items), np.bool_), test=test)
