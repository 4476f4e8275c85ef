"""The placement rules in memory: followed in the database, and read for one placement at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from features.shop.placement_rules import FOREVER_MS, ItemSelector, Rule, Rules, RuleTable
from server.catalogue.catalogue_index import CatalogueIndex, Mask
from server.following import Counters, FollowedTable
from server.queries import ItemFilter
from server.select.filters import attribute_mask


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesInForce:
    """What holds for one placement, while neither catalogue nor rules change and no rule begins or ends."""

    stamp: int
    """Names this object; 0 is `NO_RULES`."""
    blocks: tuple[tuple[str, Mask], ...] = ()
    """Name for `filter_counts`, and the rows that are blocked."""
    sums: tuple[float, ...] = (0.0,)
    """The different sums of boosts that rows have."""
    place: npt.NDArray[np.int32] | None = None
    """int32 (rows,): place in `sums` of each row; None where all have the first."""
    pins: tuple[tuple[int, str], ...] = ()
    """Position, from 1 on, and item id; in the order in which places are given."""


NO_RULES = RulesInForce(stamp=0)


class PlacementRules(FollowedTable[Rules]):
    """Follows the table; `at` reads."""

    def __init__(self, engine: Engine, index: CatalogueIndex, counters: Counters, threads: Executor) -> None:
        super().__init__(RuleTable(engine), counters, threads, name="the placement rules")
        self._index = index
        self._rules: dict[str, list[Rule]] = {}
        self._stamps = count(1)
        self._known: dict[str, tuple[int, int, int, RulesInForce]] = {}

    def at(self, placement: str, now_ms: int) -> RulesInForce:
        """What holds for a placement now."""
        if not self._rules:
            return NO_RULES
        placement = placement if placement in self._rules else ""
        known = self._known.get(placement)
        if known is None or known[0] != self._index.version or not known[1] <= now_ms < known[2]:
            rules = self._rules.get(placement, [])
            changes = {moment for rule in rules for moment in (rule.begin_ms, rule.end_ms)}
            since_ms = max((moment for moment in changes if moment <= now_ms), default=-FOREVER_MS)
            until_ms = min((moment for moment in changes if moment > now_ms), default=FOREVER_MS)
            holding = [rule for rule in rules if rule.holds(now_ms)]
            found = in_force(holding, self._index, next(self._stamps)) if holding else NO_RULES
            known = self._known[placement] = (self._index.version, since_ms, until_ms, found)
        return known[3]

    def take(self, rows: Rules) -> None:
        """The rules, by the placements that they name."""
        placements = {"", *(rule.placement for rule in rows)}
        by_placement = {
            placement: [rule for rule in rows if rule.placement in ("", placement)] for placement in placements
        }
        self._rules = by_placement if rows else {}
        self._known = {}


def in_force(rules: Sequence[Rule], index: CatalogueIndex, stamp: int) -> RulesInForce:
    """Rules that hold, over the rows of the catalogue as it is now."""
    blocks = tuple((f"rules/{rule.rule_id}", selected(index, rule.items)) for rule in rules if rule.action == "block")
    boosts = [(rule.amount, selected(index, rule.items)) for rule in rules if rule.action == "boost"]
    sums, place = np.zeros(1), None
    if boosts:
        total = np.zeros(len(index))
        for amount, rows in boosts:
            total[rows] += amount
        sums, place = np.unique(total, return_inverse=True)
    pins = sorted((rule.position, rule.rule_id, rule.items.item_ids[0]) for rule in rules if rule.action == "pin")
    return RulesInForce(
        stamp=stamp,
        blocks=blocks,
        sums=tuple(sums.tolist()),
        place=place.astype(np.int32) if place is not None and sums.size > 1 else None,
        pins=tuple((position, item_id) for position, _, item_id in pins),
    )


def selected(index: CatalogueIndex, items: ItemSelector) -> Mask:
    """The rows that a selector matches."""
    by_attributes = ItemFilter(
        keep_categories=items.categories,
        keep_brands=items.brands,
        min_price=items.min_price,
        max_price=items.max_price,
    )
    mask = attribute_mask(index, np.ones(len(index), np.bool_), by_attributes)
    if items.item_ids:
        named = np.zeros(len(index), np.bool_)
        rows = index.rows(items.item_ids)
        named[rows[rows >= 0]] = True
        mask = mask & named
    return mask


def placed_pins(
    pins: Sequence[tuple[int, str]], index: CatalogueIndex, allowed: Mask, page_size: int
) -> list[tuple[int, int]]:
    """Position and row of the pins that have a place on the page, ascending; none twice, all of them allowed."""
    found: list[tuple[int, int]] = []
    for wanted, item_id in pins:
        row = index.row_of.get(item_id, -1)
        position = max(wanted, found[-1][0] + 1 if found else 1)
        if 0 <= row < allowed.size and allowed[row] and position <= page_size and row not in (it for _, it in found):
            found.append((position, row))
    return found


def lay_out(count: int, positions: Sequence[int]) -> list[tuple[bool, int]]:
    """The page as (pinned, place), place among the pins or among `count` items that are in their own order.

    Args:
        positions: of the pins, from 1 on, ascending. One beyond the last item comes right behind it.
    """
    page: list[tuple[bool, int]] = []
    pin, own = 0, 0
    while pin < len(positions) or own < count:
        if pin < len(positions) and (positions[pin] <= len(page) + 1 or own == count):
            page.append((True, pin))
            pin += 1
        else:
            page.append((False, own))
            own += 1
    return page
