"""What rules say of one placement now: whichever items the catalogue has by now, and whatever the clock shows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from features.database.engine import open_database
from features.shop.catalogue import CatalogueItem
from features.shop.placement_rules import ItemSelector, Rule, RuleTable
from server.catalogue.catalogue_index import CatalogueIndex
from server.following import Counters
from server.select.placement_rules import NO_RULES, PlacementRules, lay_out, placed_pins

BEGIN_MS, END_MS = 1_000, 2_000
Follow = Callable[..., Awaitable[PlacementRules]]


@pytest.fixture
def index() -> CatalogueIndex:
    """Two items of A and one of B."""
    index = CatalogueIndex()
    index.apply(CatalogueItem(item_id=name, category_path=[name[0]]) for name in ("A1", "A2", "B1"))
    return index


@pytest.fixture
async def follow(index: CatalogueIndex, tmp_path: Path) -> AsyncIterator[Follow]:
    """Writes rules and takes them in."""
    engine, threads = open_database(f"sqlite:///{tmp_path / 'braid.db'}"), ThreadPoolExecutor(1)
    rules = PlacementRules(engine, index, Counters(engine, threads), threads)

    async def written(*new: Rule) -> PlacementRules:
        RuleTable(engine).upsert(new)
        await rules.refresh()
        return rules

    yield written
    threads.shutdown()
    engine.dispose()


def blocked(rules: PlacementRules, placement: str = "home", now_ms: int = BEGIN_MS) -> dict[str, list[int]]:
    """Rows that each block takes, by its name in `filter_counts`."""
    return {name: np.flatnonzero(rows).tolist() for name, rows in rules.at(placement, now_ms).blocks}


def block(rule_id: str, category: str, placement: str = "", start: int | None = None, end: int | None = None) -> Rule:
    return Rule(
        rule_id=rule_id,
        placement=placement,
        action="block",
        items=ItemSelector(categories=(category,)),
        start_time_ms=start,
        end_time_ms=end,
    )


async def test_a_placement_has_its_own_rules_and_those_of_all(follow: Follow) -> None:
    rules = await follow()
    assert rules.at("home", BEGIN_MS) is NO_RULES
    await follow(block("of-home", "A", "home"))
    assert blocked(rules) == {"rules/of-home": [0, 1]} and blocked(rules, "basket") == {}
    await follow(block("of-all", "B"))
    assert blocked(rules) == {"rules/of-home": [0, 1], "rules/of-all": [2]}
    assert blocked(rules, "basket") == {"rules/of-all": [2]}


async def test_items_that_come_after_a_rule_obey_it(follow: Follow, index: CatalogueIndex) -> None:
    rules = await follow(block("b", "A"))
    assert blocked(rules) == {"rules/b": [0, 1]}
    index.apply([CatalogueItem(item_id="A3", category_path=["A"]), CatalogueItem(item_id="A1", category_path=["C"])])
    assert blocked(rules) == {"rules/b": [1, 3]}


async def test_a_rule_holds_from_its_start_until_its_end_wherever_the_clock_is_set(follow: Follow) -> None:
    rules = await follow(block("timed", "A", start=BEGIN_MS, end=END_MS), block("later", "B", start=END_MS + 500))
    for now_ms, names in (
        (BEGIN_MS - 1, []),
        (BEGIN_MS, ["rules/timed"]),
        (END_MS - 1, ["rules/timed"]),
        (END_MS, []),
        (END_MS + 500, ["rules/later"]),
        (BEGIN_MS, ["rules/timed"]),  # the clock was set back
        (BEGIN_MS - 1, []),
    ):
        assert list(blocked(rules, now_ms=now_ms)) == names, now_ms


async def test_what_rules_say_is_worked_out_once_until_something_changes(follow: Follow, index: CatalogueIndex) -> None:
    rules = await follow(block("timed", "A", start=BEGIN_MS, end=END_MS))
    first = rules.at("home", BEGIN_MS)
    assert rules.at("home", END_MS - 1) is first
    index.apply([CatalogueItem(item_id="B2", category_path=["B"])])
    assert rules.at("home", END_MS - 1).stamp != first.stamp  # masks are kept by it


@pytest.mark.parametrize(
    ("pins", "placed"),
    [
        ([(1, "A1")], [(1, 0)]),
        ([(1, "A1"), (1, "B1"), (2, "A2")], [(1, 0), (2, 2), (3, 1)]),  # a place that is taken: the next one
        ([(2, "B1"), (3, "B1")], [(2, 2)]),  # on the page once
        ([(1, "nowhere"), (1, "not allowed"), (1, "new"), (2, "A2")], [(2, 1)]),  # they leave their places
        ([(3, "A1"), (3, "A2"), (4, "B1")], [(3, 0)]),  # the page has three
    ],
)
def test_a_pin_has_its_place_or_the_next_one_that_is_free(
    index: CatalogueIndex, pins: list[tuple[int, str]], placed: list[tuple[int, int]]
) -> None:
    index.apply(CatalogueItem(item_id=name) for name in ("not allowed", "new"))
    assert placed_pins(pins, index, np.array([True, True, True, False]), 3) == placed


@pytest.mark.parametrize(
    ("own", "positions", "page"),
    [
        (2, [1, 4], "pin own own pin"),
        (3, [2, 3], "own pin pin own own"),
        (1, [2, 9], "own pin pin"),  # no gap before a pin that is further down
        (0, [5], "pin"),
        (2, [], "own own"),
    ],
)
def test_pins_and_the_others_make_one_page_without_gaps(own: int, positions: list[int], page: str) -> None:
    laid_out = lay_out(own, positions)
    assert ["pin" if is_pin else "own" for is_pin, _ in laid_out] == page.split()
    for wanted, count in ((True, len(positions)), (False, own)):
        assert [place for is_pin, place in laid_out if is_pin == wanted] == list(range(count))
