"""Exploration: a small share of pages gives a place to an item that hardly anybody has seen, so that it can be judged.

Such an item is younger than the release, or fewer than `SEEN_EVENTS` events of the log concern it. Where a model
answers, it is one of the `CHOICES` that suit the shopper best by their content, else any. It obeys filter and caps, and
takes a place of the page's lower half; the last item leaves.

Whether, which and where follow from shopper, placement and hour alone: a page that is asked again stays as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct

import numpy as np

from features.schema import shopper_key
from server.catalogue.catalogue_index import Mask, Rows
from server.queries import RecommendQuery
from server.releases.loaded_release import LoadedRelease
from server.select.allowed_rows import AllowedRows
from server.select.diversity import Page
from server.select.popularity import Popularity
from server.select.selection import Floats
from server.shop import Shop

SEEN_EVENTS = 20
"""Views, clicks, carts and purchases of an item, by anybody, from which on its figures speak for it."""
CHOICES = 20
_HOUR_MS = 3_600_000
_NUMBERS = Struct(">3Q")


@dataclass(frozen=True, slots=True)
class Draw:
    """Three numbers from 0 to below 1: whether to explore, where, and what."""

    whether: float
    where: float
    what: float

    @staticmethod
    def of(query: RecommendQuery) -> Draw:
        """The same for the same shopper, placement and hour."""
        shopper = query.shopper
        key = shopper_key(shopper.user_id, shopper.session_id)
        text = f"{key}\0{query.placement}\0{shopper.now_ms // _HOUR_MS}"
        digest = hashlib.blake2b(text.encode(), digest_size=24).digest()
        return Draw(*(number / 2**64 for number in _NUMBERS.unpack(digest)))


def explore(
    shop: Shop,
    query: RecommendQuery,
    page: Page,
    allowed: AllowedRows,
    release: LoadedRelease | None,
    score_of: Callable[[Rows], Floats],
    *,
    by_model: bool,
) -> None:
    """Gives a place of a full page away, where the draw says so and there is an item to try out.

    Args:
        allowed: what may be shown.
        score_of: what rows score on this page, boosts apart, float32 (n,); -inf where nothing can be said.
        by_model: whether these scores tell what suits the shopper.
    """
    draw = Draw.of(query)
    if draw.whether >= shop.exploration_rate or not page.done or page.rows.size < 2:
        return
    rows = hardly_seen(shop.popular.current, release, page.open_for_last(allowed.mask))
    if by_model:
        scores = score_of(rows)
        best = np.argsort(-scores, kind="stable")[:CHOICES]
        rows = rows[best[np.isfinite(scores[best])]]
    if rows.size:
        chosen = rows[[int(draw.what * rows.size)]]
        score = score_of(chosen) + allowed.boosts(chosen)
        upper = page.rows.size // 2
        page.give_last(upper + int(draw.where * (page.rows.size - upper)), int(chosen[0]), float(score[0]))


def hardly_seen(popularity: Popularity, release: LoadedRelease | None, mask: Mask) -> Rows:
    """Rows of the mask that are younger than the release, or that few events concern."""
    young = np.ones(mask.size, np.bool_)
    counted = popularity.events[: young.size]
    young[: counted.size] = counted < SEEN_EVENTS
    if release is not None:
        young[release.new.rows[release.new.rows < mask.size]] = True
    return np.flatnonzero(young & mask).astype(np.int32)
