"""Ranks items by the probability with which the simulation really chose them: the best that any model can do.

    oracle = Oracle(Path("DIR"))          # a folder that `python -m demo simulate` wrote
    visits = oracle.buying_visits()       # truth/visits.parquet where something was bought
    scores = oracle.scores(visits)        # (visits, items), at each visit's `decision_ms`

The oracle knows the shopper's taste, the visit's intent, what the shopper owns and what runs out; not the dice. It can
be made to forget one strand, which shows what a model of the other strand alone could reach.
"""

from __future__ import annotations

import json
import math
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from demo.catalogue import Floats, Ints, make_catalogue
from demo.choice import VIEWED_PENALTY, Chooser
from demo.events import BUYS, INTENT_FOLLOWED, MORE_ITEMS
from demo.shoppers import make_shoppers
from demo.simulate import CHUNK, ShopPlan
from demo.visits import DAY_MS, INTENT_LASTING, INTENT_SHARE, NEED_JITTER

CROWD = 400
"""Shoppers over whom taste is averaged where the oracle must not know it."""


class Oracle:
    """Reads a simulated shop's truth; holds one chunk of shoppers at a time.

    Raises:
        ValueError: the folder was written by another version of the simulation, whose dice were others.
    """

    def __init__(self, folder: Path) -> None:
        facts = json.loads((folder / "truth" / "shop.json").read_text())
        names = ("shoppers", "items", "days", "seed", "intents", "noise")
        self.plan = ShopPlan(**{name: facts[name] for name in names}, end=date.fromisoformat(facts["end"]))
        self.folder = folder
        self.catalogue = make_catalogue(self.plan.seed, self.plan.items, self.plan.days)
        truth = pl.read_parquet(folder / "truth" / "items.parquet")
        if not np.allclose(truth["style"].to_numpy(), self.catalogue.style):
            raise ValueError(
                f"{folder} was simulated by another version of the shop; run `python -m demo simulate` again"
            )
        self.item_ids = truth["item_id"].to_list()
        self._choosers: dict[int, Chooser] = {}

    def buying_visits(self) -> pl.DataFrame:
        """Visits that bought something, in order of time; `viewed` and `bought` are item indices."""
        visits = pl.scan_parquet(self.folder / "truth" / "visits.parquet")
        return visits.filter(pl.col("bought").list.len() > 0).sort("decision_ms").collect()

    def scores(self, visits: pl.DataFrame, *, know_intent: bool = True, know_taste: bool = True) -> Floats:
        """Expected purchases of every item on each visit, (len(visits), N), as seen at its `decision_ms`.

        Args:
            visits: rows of `buying_visits`, in any order.
            know_intent: without, the visit's intent and views are not used.
            know_taste: without, the shopper's taste, possessions and needs are not used.
        """
        scores = np.empty((visits.height, self.plan.items))
        chunk = visits["shopper"].to_numpy() // CHUNK
        for number in np.unique(chunk):
            rows = np.flatnonzero(chunk == number)
            scores[rows] = self._chunk_scores(int(number), visits[rows], know_intent, know_taste)
        return scores

    def _chunk_scores(self, chunk: int, visits: pl.DataFrame, know_intent: bool, know_taste: bool) -> Floats:
        chooser = self._chooser(chunk)
        shopper = visits["shopper"].to_numpy() - chunk * CHUNK
        day = visits["day"].to_numpy()
        intent = visits["intent"].to_numpy() if know_intent else np.full(visits.height, -1)
        within = self._within(chooser, shopper, day, visits if know_intent else None, know_taste)
        lasting = _softmax(self._season(chooser, shopper, day, 1.0 if know_taste else 0.0))
        if know_intent or not self.plan.intents:
            named = np.zeros_like(lasting)
            named[np.flatnonzero(intent >= 0), intent[intent >= 0]] = 1.0
            share = np.where(intent >= 0, INTENT_FOLLOWED, 0.0)[:, None]
        else:
            named = _softmax(self._season(chooser, shopper, day, INTENT_LASTING if know_taste else 0.0))
            share = np.full((visits.height, 1), INTENT_FOLLOWED * INTENT_SHARE)
        occasions = share * named + (1 - share) * lasting
        chosen = occasions[:, self.catalogue.occasion] * within
        if not know_taste:
            return chosen
        return self._with_possessions(chooser, chunk, visits, chosen, intent, know_intent)

    def _chooser(self, chunk: int) -> Chooser:
        if chunk not in self._choosers:
            first = chunk * CHUNK
            count = min(CHUNK, self.plan.shoppers - first)
            shoppers = make_shoppers(self.plan.seed, first, count, self.plan.days)
            begins = self.plan.start_ms // DAY_MS % 365
            self._choosers = {chunk: Chooser(self.catalogue, shoppers, self.plan.days, begins)}
        return self._choosers[chunk]

    def _season(self, chooser: Chooser, shopper: Ints, day: Ints, lasting: float) -> Floats:
        return np.asarray(chooser.season[day // 7] + lasting * chooser.lasting[shopper])

    def _within(
        self, chooser: Chooser, shopper: Ints, day: Ints, visits: pl.DataFrame | None, know_taste: bool
    ) -> Floats:
        """(n, N) probability of each item within its occasion."""
        penalty = np.zeros((shopper.size, self.plan.items))
        if visits is not None:
            seen = visits.select(row=pl.int_range(pl.len()), item="viewed").explode("item").drop_nulls()
            penalty[seen["row"].to_numpy(), seen["item"].to_numpy()] = VIEWED_PENALTY
        within = np.zeros_like(penalty)
        crowd = np.arange(min(CROWD, chooser.shoppers.size))
        weeks, week = np.unique(day // 7, return_inverse=True)
        for items in self.catalogue.members:
            if know_taste:
                within[:, items] = _softmax(chooser.utilities(items, shopper, day, 1.0) + penalty[:, items])
                continue
            average = np.stack(
                [_softmax(chooser.utilities(items, crowd, np.full(crowd.size, w * 7), 1.0)).mean(axis=0) for w in weeks]
            )
            mixed = average[week] * np.exp(penalty[:, items])
            within[:, items] = mixed / np.maximum(mixed.sum(axis=1, keepdims=True), 1e-300)
        return within

    def _with_possessions(
        self, chooser: Chooser, chunk: int, visits: pl.DataFrame, chosen: Floats, intent: Ints, know_intent: bool
    ) -> Floats:
        """Takes out what lasts and is owned, and adds what is running out."""
        owned = self._bought_before(visits)
        rows, items = owned["row"].to_numpy(), owned["item"].to_numpy()
        lasts = self.catalogue.interval_days[items] == 0
        chosen[rows[lasts], items[lasts]] = 0.0
        needs = pl.read_parquet(self.folder / "truth" / "needs.parquet")
        due = owned.join(needs, on=["user_id", "item"], how="inner")
        elapsed, interval = (due["day"] - due["last_day"]).to_numpy(), due["interval_days"].to_numpy()
        passed, next_day = _elapsed_share(elapsed / interval), _elapsed_share((elapsed + 1) / interval)
        hazard = (next_day - passed) / np.maximum(1 - passed, 1e-6)
        # A visit with an intent is one of habit; another is that, at the shopper's rate, or one that a need forces.
        daily = chooser.shoppers.visits_per_day[visits["shopper"].to_numpy() - chunk * CHUNK]
        aimless = daily * (1 - INTENT_SHARE) if self.plan.intents and know_intent else daily
        came = (intent >= 0) if know_intent else np.zeros(visits.height, bool)
        habit = np.where(came, 1.0, aimless)
        expected = chosen * (BUYS * (1 + MORE_ITEMS) * habit)[:, None]
        row = due["row"].to_numpy()
        expected[row, due["item"].to_numpy()] += hazard
        return np.asarray(expected)

    def _bought_before(self, visits: pl.DataFrame) -> pl.DataFrame:
        """row, user_id, day, item, last_day: what each row's shopper bought on earlier days or visits."""
        asked = visits.select("user_id", "day", "decision_ms", row=pl.int_range(pl.len()))
        bought = (
            self.buying_visits()
            .lazy()
            .filter(pl.col("user_id").is_in(asked["user_id"].implode()))
            .select("user_id", bought_ms="decision_ms", bought_day="day", item="bought")
            .explode("item")
        )
        return (
            asked.lazy()
            .join(bought, on="user_id")
            .filter(pl.col("bought_ms") < pl.col("decision_ms"))
            .group_by("row", "user_id", "day", "item")
            .agg(last_day=pl.col("bought_day").max())
            .sort("row", "item")
            .collect()
        )


def ndcg(scores: Floats, targets: list[list[int]], k: int = 10) -> Floats:
    """(n,) NDCG@k of each row, binary relevance, ideal over min(k, targets)."""
    best = np.argpartition(-scores, min(k, scores.shape[1] - 1), axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discount)
    gains = [discount[: row.size] @ np.isin(row, wanted) for row, wanted in zip(best, targets, strict=True)]
    most = [ideal[min(len(set(wanted)), k) - 1] if wanted else 1.0 for wanted in targets]
    return np.asarray(np.array(gains) / np.array(most))


def _softmax(logits: Floats) -> Floats:
    best = logits.max(axis=1, keepdims=True)
    weights = np.exp(logits - np.where(np.isfinite(best), best, 0.0))
    return np.asarray(weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300))


def _elapsed_share(ratio: Floats) -> Floats:
    """Share of gaps that are shorter than `ratio` mean gaps."""
    logs = np.log(np.maximum(ratio, 1e-9)) / NEED_JITTER
    return np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in logs])
