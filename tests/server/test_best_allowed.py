"""The page is the best k of what filter, catalogue and rules allow, against a reading of the contract item by item.

Random catalogues, filters, rules and scores; the model is a double that returns its best 256, as the real one does.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.inputs.codes import CodeVocabularies
from features.inputs.content import ContentVocabulary
from features.inputs.probabilities import Probabilities
from features.inputs.shopper import ShopperEvent, ShopperQuery, merge
from features.releases.release import Manifest, ReleaseFiles
from features.schema import CONTENT_TOKENS, PADDING, RECENT_EVENTS, TOP_ITEMS, EventType, schema_hash
from features.shop.catalogue import CatalogueItem
from features.shop.placement_rules import ItemSelector, Rule
from server.catalogue.catalogue_index import CatalogueIndex
from server.deadline import Deadline
from server.hydrate.fusion_request import FusionRequest
from server.infer.triton import FusionAnswer
from server.queries import ItemFilter, Recommendation, RecommendQuery
from server.recommend import _Page
from server.releases.loaded_release import LoadedRelease, NewItems, catalogue_rows
from server.select.allowed_rows import allowed_rows
from server.select.filter_masks import FilterMasks
from server.select.filters import Sellable, excluded
from server.select.placement_rules import in_force
from server.shop import Course

NOW_MS = 1_790_000_000_000
DIM = 2
STEP = 2.0**-6
"""Between scores; boosts have parts below it, so that no two sums are alike and all are exact in float32."""
SHARES = (0.9, 0.5, 0.1, 0.01, 0.0005)
TOPS = ("A", "B", "C")
PRICES = (None, 1.0, 5.0, 20.0)

SELECTORS = st.one_of(
    st.sampled_from(TOPS).map(lambda top: ItemSelector(categories=(top,))),
    st.just(ItemSelector(categories=("B/x",), brands=("kept", "other"))),
    st.just(ItemSelector(min_price=2.0, max_price=5.0)),
    st.lists(st.integers(0, 2_400), min_size=1, max_size=30).map(
        lambda numbers: ItemSelector(item_ids=tuple(f"i{number}" for number in numbers))
    ),
)
BOOSTS = st.lists(st.tuples(SELECTORS, st.integers(-600, 600)), max_size=4).map(
    lambda drawn: [
        Rule(rule_id=f"boost-{number}", action="boost", items=items, amount=steps * STEP + STEP / 2 ** (number + 1))
        for number, (items, steps) in enumerate(drawn)
    ]
)
BLOCKS = st.lists(SELECTORS, max_size=2).map(
    lambda drawn: [Rule(rule_id=f"block-{number}", action="block", items=items) for number, items in enumerate(drawn)]
)
PINS = st.lists(st.tuples(st.integers(0, 2_400), st.integers(1, 12)), max_size=4).map(
    lambda drawn: [
        Rule(rule_id=f"pin-{number}", action="pin", items=ItemSelector(item_ids=(f"i{item}",)), position=position)
        for number, (item, position) in enumerate(drawn)
    ]
)
FILTERS = st.builds(
    ItemFilter,
    keep_categories=st.sampled_from([(), (), ("A",), ("A/x", "C"), ("nowhere",)]),
    drop_categories=st.sampled_from([(), (), ("B",), ("A/y",)]),
    keep_brands=st.sampled_from([(), ("kept",), ("kept",)]),
    drop_brands=st.sampled_from([(), ("other",)]),
    min_price=st.sampled_from([None, None, 0.0, 5.0]),
    max_price=st.sampled_from([None, None, 5.0, 100.0]),
    in_stock_only=st.booleans(),
    allow_age_restricted=st.booleans(),
    exclude_item_ids=st.lists(st.integers(0, 2_400), max_size=20).map(lambda drawn: tuple(f"i{it}" for it in drawn)),
    exclude_purchased=st.booleans(),
    exclude_shown_today=st.booleans(),
)


@dataclass(frozen=True)
class Case:
    """A catalogue, the first items of which the release knows, and the score of each."""

    items: list[CatalogueItem]
    known: int
    scores: npt.NDArray[np.float32]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    known, new = draw(st.sampled_from([1, 7, 60, 700, 2_000])), draw(st.sampled_from([0, 3, 300]))
    share = draw(st.sampled_from(SHARES))
    kept = rng.random(known + new) < share
    kept[rng.integers(kept.size)] = True
    items = [
        CatalogueItem(
            item_id=f"i{number}",
            category_path=[TOPS[rng.integers(3)], "xy"[rng.integers(2)]],
            brand="kept" if kept[number] else "other",
            price=PRICES[rng.integers(4)],
            stock=int(rng.integers(4)),
            age_restricted=bool(rng.random() < 0.1),
            launch_time_ms=NOW_MS + 1 if rng.random() < 0.05 else None,
            deleted=bool(rng.random() < 0.05),
        )
        for number in range(known + new)
    ]
    return Case(items, known, (rng.permutation(known + new) * STEP - 8).astype(np.float32))


class Model:
    """Answers with the best 256 that the bits allow, as `training.export.FusionServing.best` does."""

    def __init__(self, scores: npt.NDArray[np.float32]) -> None:
        self._scores = scores

    async def fuse(self, *requests: FusionRequest, deadline: Deadline) -> list[FusionAnswer]:
        return [self._answer(request.allowed) for request in requests]

    def _answer(self, allowed: npt.NDArray[np.uint8]) -> FusionAnswer:
        count = self._scores.size
        bits = np.unpackbits(allowed, bitorder="little").astype(bool)
        kept = np.ones(count, bool) if allowed.tolist() == [0] else np.pad(bits, (0, count))[:count]
        best = np.flatnonzero(kept)[np.argsort(-self._scores[kept], kind="stable")][:TOP_ITEMS]
        items, scores = np.full(TOP_ITEMS, PADDING, np.int32), np.full(TOP_ITEMS, -1e9, np.float32)
        items[: best.size], scores[: best.size] = best, self._scores[best]
        return FusionAnswer(
            items,
            scores,
            np.zeros(1, np.float32),
            np.zeros(DIM, np.float32),
            np.zeros(1, np.float32),
            np.zeros(RECENT_EVENTS, np.float32),
        )


def loaded(
    case: Case,
    index: CatalogueIndex,
    vectors: npt.NDArray[np.float32] | None = None,
    biases: npt.NDArray[np.float32] | None = None,
) -> LoadedRelease:
    """The release of a case; all vectors and biases are zero unless they are given."""
    names = ("item_id", "title", "category_path", "brand", "price")
    items = pl.DataFrame({name: [getattr(item, name) for item in case.items[: case.known]] for name in names})
    manifest: dict[str, Any] = dict.fromkeys(Manifest.__dataclass_fields__, "")
    manifest |= {"release": 1, "schema_hash": schema_hash(), "interest_dim": DIM, "item_count": case.known}
    release = LoadedRelease(
        ReleaseFiles(
            folder=Path(),
            manifest=Manifest(**manifest),
            items=items.with_columns(bias=pl.lit(0.0) if biases is None else pl.Series(biases), popularity=pl.lit(0.0)),
            item_vectors=np.zeros((case.known, DIM), np.float32) if vectors is None else vectors,
            content=ContentVocabulary(codes={}, price_edges=[]),
            codes=CodeVocabularies(gender={}, country={}, device={}),
            probabilities=Probabilities(),
        ),
        catalogue_rows(items, index),
    )
    rows = index.rows([item.item_id for item in case.items[case.known :]])
    release.new = NewItems(
        rows,
        np.zeros((rows.size, CONTENT_TOKENS), np.int32),
        np.zeros((rows.size, DIM), np.float32),
        case.scores[case.known :],
    )
    return release


def shop_of(case: Case, index: CatalogueIndex, rules: list[Rule], **others: Any) -> Any:
    """What a page is made from, that explores nothing unless `others` says so."""
    sellable, holding = Sellable(index), in_force(rules, index, 1)
    parts = {
        "exploration_rate": 0.0,
        "index": index,
        "sellable": sellable,
        "masks": FilterMasks(index, sellable),
        "rules": SimpleNamespace(at=lambda placement, now_ms: holding),
        "model": Model(case.scores[: case.known]),
        "remember": lambda *_, **__: SimpleNamespace(release=1, attribution_token="token"),
    }
    return SimpleNamespace(**parts | others)


def answered(case: Case, query: RecommendQuery, rules: list[Rule], bought: list[str], shown: list[str]) -> Any:
    index = CatalogueIndex()
    index.apply(case.items)
    shop = shop_of(case, index, rules)
    left_out = excluded(index, query.filter, index.rows(bought), index.rows(shown))
    page = _Page(shop, query, merge([], query.shopper), left_out, Course(None))
    return asyncio.run(page.by_model(loaded(case, index), Deadline()))


def matches(item: CatalogueItem, items: ItemSelector) -> bool:
    paths = {"/".join(item.category_path[:level]) for level in (1, 2)}
    return (
        (not items.categories or bool(paths & set(items.categories)))
        and (not items.brands or item.brand in items.brands)
        and (items.min_price is None or (item.price is not None and item.price >= items.min_price))
        and (items.max_price is None or (item.price is not None and item.price <= items.max_price))
        and (not items.item_ids or item.item_id in items.item_ids)
    )


def taken_by(item: CatalogueItem, wanted: ItemFilter, rules: list[Rule], bought: list[str], shown: list[str]) -> str:
    """What the first thing that forbids an item is called; empty if it may be shown."""
    if item.deleted or (item.launch_time_ms or 0) > NOW_MS or (item.age_restricted and not wanted.allow_age_restricted):
        return "catalog"
    for rule in rules:
        if rule.action == "block" and matches(item, rule.items):
            return f"rules/{rule.rule_id}"
    paths = {"/".join(item.category_path[:level]) for level in (1, 2)}
    price = item.price
    reasons = {
        "keep_categories": wanted.keep_categories and not paths & set(wanted.keep_categories),
        "drop_categories": paths & set(wanted.drop_categories),
        "keep_brands": wanted.keep_brands and item.brand not in wanted.keep_brands,
        "drop_brands": item.brand in wanted.drop_brands,
        "min_price": wanted.min_price is not None and (price is None or price < wanted.min_price),
        "max_price": wanted.max_price is not None and (price is None or price > wanted.max_price),
        "in_stock_only": wanted.in_stock_only and item.stock == 0,
        "exclude_item_ids": item.item_id in wanted.exclude_item_ids,
        "exclude_purchased": wanted.exclude_purchased and item.item_id in bought,
        "exclude_shown_today": wanted.exclude_shown_today and item.item_id in shown,
    }
    return next((name for name, took in reasons.items() if took), "")


def page_by_hand(case: Case, query: RecommendQuery, rules: list[Rule], allowed: dict[str, CatalogueItem]) -> list[str]:
    """The best in the order of score plus boosts, then the pins put in, one place after the other."""
    pins: dict[int, str] = {}
    last = 0
    for pin in sorted((rule for rule in rules if rule.action == "pin"), key=lambda rule: (rule.position, rule.rule_id)):
        (item_id,) = pin.items.item_ids
        place = max(pin.position, last + 1)
        if item_id in allowed and item_id not in pins.values() and place <= query.page_size:
            pins[place], last = item_id, place
    scores = {item.item_id: float(score) for item, score in zip(case.items, case.scores, strict=True)}
    for rule in rules:
        if rule.action == "boost":
            for item_id, item in allowed.items():
                scores[item_id] += rule.amount if matches(item, rule.items) else 0.0
    own = sorted((item_id for item_id in allowed if item_id not in pins.values()), key=lambda it: -scores[it])
    page: list[str] = []
    while len(page) < query.page_size and (own or pins):
        if len(page) + 1 in pins or not own:
            page.append(pins.pop(min(pins)))
        else:
            page.append(own.pop(0))
    return page


@settings(max_examples=200, deadline=None)
@given(cases(), FILTERS, BOOSTS, BLOCKS, PINS, st.integers(1, 100), st.integers(0, 2_400), st.integers(0, 2_400))
def test_the_best_allowed_come_back_whatever_filter_and_rules_say(
    case: Case,
    wanted: ItemFilter,
    boosts: list[Rule],
    blocks: list[Rule],
    pins: list[Rule],
    page_size: int,
    bought: int,
    shown: int,
) -> None:
    event = ShopperEvent("e", "i0", EventType.VIEW, NOW_MS - 5_000)
    shopper = ShopperQuery(user_id="anna", session_id="", now_ms=NOW_MS, recent_events=(event,))
    query = RecommendQuery(shopper=shopper, page_size=page_size, filter=wanted)
    rules, names = [*boosts, *blocks, *pins], ([f"i{bought}"], [f"i{shown}", "nobody"])
    answer: Recommendation = answered(case, query, rules, *names)
    taken = {item.item_id: taken_by(item, wanted, rules, *names) for item in case.items}
    allowed = {item.item_id: item for item in case.items if not taken[item.item_id]}
    assert answer.item_ids == page_by_hand(case, query, rules, allowed)
    assert len(answer.item_ids) == min(page_size, len(allowed))
    own = [score for score, pinned in zip(answer.scores, answer.pinned, strict=True) if not pinned]
    assert own == sorted(own, reverse=True)
    counts = {name: list(taken.values()).count(name) for name in set(taken.values()) - {""}}
    assert dict(answer.filter_counts) == (counts if len(answer.item_ids) < page_size else {})


@pytest.mark.parametrize("amount", [-9.0, -1.0, 0.5, 9.0])
def test_where_the_model_may_know_better_items_of_a_part_the_order_of_all_ends(amount: float) -> None:
    items = [CatalogueItem(item_id=f"i{number}", category_path=["AB"[number % 2]]) for number in range(1_500)]
    case = Case(items, 1_500, (np.random.default_rng(1).permutation(1_500) * STEP).astype(np.float32))
    boost = Rule(rule_id="boost", action="boost", items=ItemSelector(categories=("A",)), amount=amount + STEP / 2)
    index = CatalogueIndex()
    index.apply(items)
    shop, release = shop_of(case, index, [boost]), loaded(case, index)
    allowed = allowed_rows(shop.masks.of(NOW_MS, ItemFilter(), in_force([boost], index, 1)), [])
    shopper = merge([], ShopperQuery(user_id="anna", session_id="", now_ms=NOW_MS))
    answers = asyncio.run(shop.model.fuse(*allowed.requests(shopper, release, index), deadline=Deadline()))
    rows, scores, boosts = allowed.best(answers, release)
    sums = case.scores + np.where(np.arange(1_500) % 2 == 0, np.float32(boost.amount), 0)
    assert rows.size >= TOP_ITEMS and rows.tolist() == np.argsort(-sums)[: rows.size].tolist()
    assert (scores + boosts).tolist() == sums[rows].tolist()


@pytest.mark.parametrize("score", [-1.0, 0.0, 1.0])
def test_an_item_without_a_vector_fills_a_page_that_would_be_short(score: float) -> None:
    case = Case([CatalogueItem(item_id=f"i{number}") for number in range(4)], 4, np.full(4, score, np.float32))
    index = CatalogueIndex()
    index.apply(case.items)
    release = loaded(case, index)
    index.apply([CatalogueItem(item_id="young"), CatalogueItem(item_id="younger")])
    shopper = ShopperQuery(user_id="anna", session_id="", now_ms=NOW_MS)
    shop = shop_of(case, index, [])
    for page_size, last in ((4, ["i3"]), (5, ["i3", "younger"]), (9, ["i3", "younger", "young"])):
        query = RecommendQuery(shopper=shopper, page_size=page_size)
        page = _Page(shop, query, merge([], shopper), [], Course(None))
        answer = asyncio.run(page.by_model(release, Deadline()))
        assert answer.item_ids[3:] == last
        assert answer.scores == sorted(answer.scores, reverse=True)


def test_items_that_score_alike_fill_a_page_whatever_their_boost() -> None:
    items = [CatalogueItem(item_id=f"i{number}", category_path=["A" if number < 300 else "B"]) for number in range(600)]
    shopper = ShopperQuery(user_id="anna", session_id="", now_ms=NOW_MS)
    query = RecommendQuery(shopper=shopper, page_size=10)
    for score, amount in ((3.912, 7.29), (-1.6327769, 5.41), (0.5655576, 5.72)):  # sums that float32 rounds down
        case = Case(items, 600, np.full(600, score, np.float32))
        boost = Rule(rule_id="boost", action="boost", items=ItemSelector(categories=("A",)), amount=amount)
        answer = answered(case, query, [boost], [], [])
        assert len(set(answer.item_ids)) == 10 and all(int(item_id[1:]) < 300 for item_id in answer.item_ids)
