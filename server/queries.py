"""What a caller asks and what is answered, free of protobuf; made and read by `server.services`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from features.inputs.shopper import ShopperQuery
from features.schema import DEFAULT_PAGE_SIZE, EventType, Tier
from features.shop.catalogue import CatalogueItem


class Strand(IntEnum):
    """Why an item is in the answer; the numbers are those of `Reason.Strand`."""

    LONG_TERM = 1
    RECENT = 2
    REPEAT = 3
    POPULAR = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFilter:
    """What may be shown; the fields are those of `braid.v1.Filter`."""

    keep_categories: tuple[str, ...] = ()
    drop_categories: tuple[str, ...] = ()
    keep_brands: tuple[str, ...] = ()
    drop_brands: tuple[str, ...] = ()
    min_price: float | None = None
    max_price: float | None = None
    in_stock_only: bool = False
    exclude_item_ids: tuple[str, ...] = ()
    exclude_purchased: bool = False
    repurchase_window_ms: int | None = None
    allow_age_restricted: bool = False
    exclude_shown_today: bool = False


NO_FILTER = ItemFilter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """How many items of one kind a page may have; 0 is no cap. Items without a category or a brand are not capped."""

    max_per_category: int = 0
    category_level: int = 0
    """Levels of the path that make a category; 0 is the whole path."""
    max_per_brand: int = 0


NO_CAPS = Caps()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendQuery:
    """One call of Recommend."""

    shopper: ShopperQuery
    placement: str = ""
    page_size: int = DEFAULT_PAGE_SIZE
    filter: ItemFilter = NO_FILTER
    diversity: float = 0.0
    caps: Caps = NO_CAPS
    explain: bool = False


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one item is in the answer; `because` are item ids, strongest first."""

    strand: Strand
    because: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The answer to Recommend. Lists are in the order of the answer."""

    item_ids: list[str]
    scores: list[float]
    reasons: list[Reason | None]
    """None unless asked for, and for what a rule put there."""
    pinned: list[bool]
    """Whether a rule of the placement put the item there."""
    explored: int | None
    """Place of the item that is there to be tried out, if any."""
    tier: Tier
    release: int
    long_term_weight: float | None
    last_event_ms: int | None
    encoded_through_ms: int | None
    filter_counts: list[tuple[str, int]]
    attribution_token: str
    long_term_stale: bool
    """A long-term vector was left out; see `Shopper.interest_stale`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankQuery:
    """One call of Rank: the items by id, then those whose content came along."""

    shopper: ShopperQuery
    item_ids: tuple[str, ...]
    items: tuple[CatalogueItem, ...] = ()
    event_type: EventType = EventType.PURCHASE


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The answer to Rank, in the order of the request."""

    scores: list[float]
    unknown: list[bool]
    probabilities: list[float] | None
    """Of the event asked for; None where none can be told."""
    tier: Tier
    release: int
    attribution_token: str
    long_term_stale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarItems:
    """The answer to SimilarItems, nearest first."""

    item_ids: list[str]
    similarities: list[float]
    release: int


Interest = tuple[tuple[str, ...], float]
"""Category path and strength."""


Change = tuple[tuple[str, ...], float, float]
"""Category path, and its strength in long-term and in current interest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interests:
    """The answer to GetInterests, strongest first."""

    long_term: list[Interest]
    current: list[Interest]
    return_probability: float | None
    long_term_weight: float | None
    last_event_ms: int | None
    release: int
    tier: Tier
    long_term_stale: bool
