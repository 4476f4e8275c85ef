"""Every name, dimension, window and dtype that two packages share; imports the standard library alone.

Indices. Inside a release, item index `i` is row `i` of its `items.parquet` and `items.npy`. Sequences use
`PADDING` where there is no event and `UNKNOWN` for an item that the release does not know.

Time. Columns that end in `_ms` are integer milliseconds since the Unix epoch, UTC; `_s` are seconds.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, Literal

# --- events


class EventType(IntEnum):
    """What a shopper did. The numbers are stored in the log, sent to the model and used in `braid.v1`."""

    VIEW = 1
    CART = 2
    FAVOURITE = 3
    PURCHASE = 4
    IMPRESSION = 5
    CLICK = 6
    SEARCH = 7


EVENT_NAMES: Final[dict[str, EventType]] = {kind.name.lower(): kind for kind in EventType}
"""`"view"` to `EventType.VIEW` and so on: the names that mappings and command lines use."""

SEQUENCE_TYPES: Final[tuple[EventType, ...]] = (
    EventType.VIEW,
    EventType.CART,
    EventType.FAVOURITE,
    EventType.PURCHASE,
    EventType.CLICK,
)
"""The events that enter a shopper's sequences. An impression is the shop's act and a search has no item."""

EVENT_TYPE_CODES: Final = 8
"""Size of an embedding over event types; 0 is padding."""

# --- answers


class Tier(IntEnum):
    """Which step of the ladder answered; the numbers are stored with the answer and are those of `braid.v1.Tier`."""

    FULL = 1
    RECENT = 2
    SEGMENT = 3
    POPULAR = 4


# --- indices

PADDING: Final = -1
UNKNOWN: Final = -2

# --- windows and dimensions

RECENT_EVENTS: Final = 50
"""T: events in the short-term strand."""

HISTORY_EVENTS: Final = 500
"""L: events that the long-term encoder reads, newest kept."""

OWN_ITEMS: Final = 128
"""R: items that the shopper bought before, most often bought first."""

OWN_FEATURES: Final[tuple[str, ...]] = (
    "log_count",
    "share_of_baskets",
    "log_days_since_last",
    "log_mean_gap_days",
    "gap_ratio",
)
"""F columns for each own item: see `features.inputs.transform.own_item_features`."""

OUTCOME_HOURS: Final = 24
"""A probability of `Rank` is that of an event of the type asked for with the item within so many hours."""

OUTCOME_FEATURES: Final[tuple[str, ...]] = (
    "relative_score",
    "above_-9",
    "above_-7",
    "above_-5",
    "above_-3",
    "above_-1.5",
    "relative_score_in_session",
    "log_seen",
    "seen_in_session",
    "log_seen_hours",
    "in_cart",
    "log_bought",
    "log_bought_days",
    "bought_today",
    "log_popularity",
    "log_session_events",
    "log_session_carts",
    "log_session_purchases",
    "log_away_hours",
    "log_baskets",
    "log_events",
)
"""Columns for each item to score: see `features.inputs.outcome_features`."""

RETURN_DAYS: Final = 30
"""`return_probability` is that of another visit within so many days."""

VISIT_GAP_S: Final = 1_800
"""A visit ends when this much time passes without an event."""

RETURN_FEATURES: Final[tuple[str, ...]] = (
    "log_away_days",
    "log_visits",
    "log_mean_gap_days",
    "log_gap_spread_days",
    "log_away_by_gap",
    "log_tenure_days",
    "log_events_7_days",
    "log_events_28_days",
    "log_events_91_days",
    "log_purchases_7_days",
    "log_purchases_28_days",
    "log_purchases_91_days",
    "log_baskets",
    "window_full",
    "log_away_days_squared",
    "log_away_days_by_log_visits",
    "log_away_by_gap_squared",
)
"""Columns for a shopper: see `features.inputs.return_features`."""

CONTENT_TOKENS: Final = 12
"""W: content tokens of an item (category path, brand, price bucket, words, attributes)."""

TOP_ITEMS: Final = 256
"""K: items that the fusion model returns."""

SHOPPER_CODES: Final[tuple[str, ...]] = ("age", "gender", "country")
CONTEXT_CODES: Final[tuple[str, ...]] = ("hour", "weekday", "device")
"""Categorical inputs, in this order; 0 is unknown in each."""

AGE_EDGES: Final[tuple[int, ...]] = (18, 25, 35, 45, 55, 65)
"""Years at which the next age code begins: code 1 is under 18, code 7 is 65 and over."""

# --- Feast

SHOPPER: Final = "shopper"
"""The entity and its join key: `u:<user id>` or `s:<session id>`."""

ITEM: Final = "item"

RECENT_VIEW: Final = "shopper_recent"
PURCHASES_VIEW: Final = "shopper_purchases"
PROFILE_VIEW: Final = "shopper_profile"
ITEM_STATISTICS_VIEW: Final = "item_statistics"
RECENT_PUSH_SOURCE: Final = "recent_events"
PURCHASES_PUSH_SOURCE: Final = "purchases"

RECENT_FEATURES: Final[tuple[str, ...]] = ("event_ids", "item_ids", "event_types", "event_times_ms", "log_position")
PURCHASES_FEATURES: Final[tuple[str, ...]] = ("item_ids", "counts", "first_times_ms", "last_times_ms", "basket_count")
PROFILE_FEATURES: Final[tuple[str, ...]] = ("age", "gender", "country")
INTEREST_FEATURES: Final[tuple[str, ...]] = ("vector", "encoded_through_ms", "encoded_position")


def interest_view(release: int) -> str:
    """The feature view that holds a release's long-term vectors."""
    return f"user_interest_v{release}"


def offline_file(offline: Path, view: str) -> Path:
    """Where the offline rows of a view lie: a Parquet file, or a folder of them for a release's vectors."""
    return offline / (view if view.startswith("user_interest_v") else f"{view}.parquet")


def feature_service(release: int) -> str:
    """The feature service that a release reads."""
    return f"fusion_v{release}"


def shopper_key(user_id: str | None, session_id: str | None) -> str:
    """The entity key of an event or a request: the user if known, else the session.

    Raises:
        ValueError: neither is given.
    """
    if user_id:
        return f"u:{user_id}"
    if session_id:
        return f"s:{session_id}"
    raise ValueError("user_id and session_id are both empty; give at least one")


# --- limits of the contract

MAX_ID_CHARS: Final = 128
MAX_TEXT_CHARS: Final = 1_000
MAX_NAME_CHARS: Final = 64
"""Of a placement, a country, a gender, a device."""
MAX_TOKEN_CHARS: Final = 256
MAX_PRICE: Final = 1_000_000_000
MAX_QUANTITY: Final = 1_000_000
MAX_STOCK: Final = 2**63 - 1
MAX_AGE: Final = 150
MIN_TIME_S: Final = -62_135_596_800  # 0001-01-01T00:00:00Z, of protobuf's timestamps
MAX_TIME_S: Final = 253_402_300_799  # 9999-12-31T23:59:59Z
MAX_CATEGORY_LEVELS: Final = 8
MAX_ATTRIBUTES: Final = 32
MAX_PAGE_SIZE: Final = 100
DEFAULT_PAGE_SIZE: Final = 10
MAX_EXCLUDED_ITEMS: Final = 1_000
MAX_FILTER_VALUES: Final = 100
MAX_CANDIDATES: Final = 1_000
MAX_BATCH_EVENTS: Final = 1_000
MAX_BATCH_ITEMS: Final = 1_000
MAX_BATCH_USERS: Final = 1_000
MAX_CLOCK_SKEW_S: Final = 300
MAX_BATCH_RULES: Final = 100
MAX_RULES: Final = 1_000
MAX_BOOSTS_AT_ONCE: Final = 4
"""Boosts that hold for one placement at a time: the model is asked once for each of their sums, 16 at the most."""
MAX_BOOST: Final = 10.0

# --- tensors


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a served model. `dims` leave out the batch; -1 is a size that a release sets."""

    name: str
    dtype: Literal["FP32", "INT32", "UINT8"]
    dims: tuple[int, ...]


FUSION_MODEL: Final = "fusion"
ITEM_TOWER_MODEL: Final = "item_tower"

FUSION_INPUTS: Final[tuple[Tensor, ...]] = (
    Tensor("long_interest", "FP32", (-1,)),  # D
    Tensor("long_mask", "FP32", (1,)),  # 1 where long_interest may be used
    Tensor("long_age", "FP32", (1,)),  # seconds since the last event that long_interest has seen
    Tensor("recent_items", "INT32", (RECENT_EVENTS,)),  # newest last, PADDING before
    Tensor("recent_types", "INT32", (RECENT_EVENTS,)),
    Tensor("recent_ages", "FP32", (RECENT_EVENTS,)),  # seconds before the request
    Tensor("recent_content", "INT32", (RECENT_EVENTS, CONTENT_TOKENS)),  # of UNKNOWN items alone, else 0
    Tensor("own_items", "INT32", (OWN_ITEMS,)),
    Tensor("own_features", "FP32", (OWN_ITEMS, len(OWN_FEATURES))),
    Tensor("shopper", "INT32", (len(SHOPPER_CODES),)),
    Tensor("context", "INT32", (len(CONTEXT_CODES),)),
    Tensor("allowed", "UINT8", (-1,)),  # little-endian bits over the item table, or one zero byte for all
    Tensor("candidates", "INT32", (-1,)),  # item indices to score, PADDING where there is none
)
"""Arguments of the fusion module's `forward`, in order."""

FUSION_OUTPUTS: Final[tuple[Tensor, ...]] = (
    Tensor("top_items", "INT32", (TOP_ITEMS,)),  # best first, PADDING where fewer are allowed
    Tensor("top_scores", "FP32", (TOP_ITEMS,)),  # logits
    Tensor("candidate_scores", "FP32", (-1,)),
    Tensor("interest", "FP32", (-1,)),  # fused; score = interest . item vector + item bias + repeat term
    Tensor("long_weight", "FP32", (1,)),  # 0 to 1
    Tensor("recent_weights", "FP32", (RECENT_EVENTS,)),  # sums to 1 over events, 0 at padding
)

ITEM_TOWER_INPUTS: Final[tuple[Tensor, ...]] = (Tensor("content", "INT32", (CONTENT_TOKENS,)),)
ITEM_TOWER_OUTPUTS: Final[tuple[Tensor, ...]] = (Tensor("vector", "FP32", (-1,)), Tensor("bias", "FP32", (1,)))


def output_name(index: int, tensor: Tensor) -> str:
    """The name under which Triton's LibTorch backend returns output `index`."""
    return f"{tensor.name}__{index}"


def schema_hash() -> str:
    """sha256 of the tensor contract and the feature lists; a release made under another one is refused."""
    parts = {
        "tensors": [
            [asdict(tensor) for tensor in group]
            for group in (FUSION_INPUTS, FUSION_OUTPUTS, ITEM_TOWER_INPUTS, ITEM_TOWER_OUTPUTS)
        ],
        "features": [RECENT_FEATURES, PURCHASES_FEATURES, PROFILE_FEATURES, INTEREST_FEATURES, OWN_FEATURES],
        "probabilities": [OUTCOME_HOURS, OUTCOME_FEATURES, RETURN_DAYS, RETURN_FEATURES],
        "codes": [SHOPPER_CODES, CONTEXT_CODES, AGE_EDGES, [(kind.name, int(kind)) for kind in EventType]],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


# --- files of a release, under model_repository/fusion/<release>/

MODULE_FILE: Final = "model.pt"
ENCODER_FILE: Final = "encoder.pt"
ITEMS_FILE: Final = "items.parquet"
VECTORS_FILE: Final = "items.npy"
VOCABULARY_FILE: Final = "vocabulary.json"
PROBABILITIES_FILE: Final = "probabilities.json"
WEIGHTS_FILE: Final = "weights.pt"
MANIFEST_FILE: Final = "release.json"
