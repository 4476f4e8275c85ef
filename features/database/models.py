"""The tables: event log, sign-ins, answers, tombstones, catalogue, users, placement rules, item statistics, releases,
traffic, API keys.

SQLAlchemy 2, typed, SQLite and PostgreSQL.

Times are integer milliseconds since the epoch, UTC (`…_ms`): both databases sort and compare them alike.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Index, Integer, LargeBinary, String, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Position = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only for INTEGER


class Base(DeclarativeBase):
    """The one metadata that Alembic compares with the database."""


class Event(Base):
    """One thing that a shopper did, as it arrived. A sign-in gives a session's events to the person."""

    __tablename__ = "events"
    __table_args__ = (
        Index("events_by_shopper", "shopper", "event_time_ms", "position"),
        {"sqlite_autoincrement": True},
    )

    position: Mapped[int] = mapped_column(Position, primary_key=True, autoincrement=True)
    event_id: Mapped[str] = mapped_column(String(128), unique=True)
    shopper: Mapped[str] = mapped_column(String(130))
    """`u:<user id>` or `s:<session id>`: `schema.shopper_key`."""
    session_id: Mapped[str | None] = mapped_column(String(128))
    item_id: Mapped[str | None] = mapped_column(String(128))
    event_type: Mapped[int]
    event_time_ms: Mapped[int] = mapped_column(BigInteger)
    arrival_time_ms: Mapped[int] = mapped_column(BigInteger)
    order_id: Mapped[str | None] = mapped_column(String(128))
    quantity: Mapped[float | None]
    price: Mapped[float | None]
    query: Mapped[str | None] = mapped_column(Text)
    attribution_token: Mapped[str | None] = mapped_column(String(256))


class SignIn(Base):
    """The first person who signed in during a session: what the session did until then is theirs."""

    __tablename__ = "sign_ins"

    session_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    shopper: Mapped[str] = mapped_column(String(130), index=True)
    """`u:<user id>`."""
    through_ms: Mapped[int] = mapped_column(BigInteger)
    """Time of the event that signed in: anonymous events of the session up to it count as the person's."""
    position: Mapped[int] = mapped_column(BigInteger, index=True)
    """Of that event in the log."""


class Answer(Base):
    """What was answered to one request, and what the model saw."""

    __tablename__ = "answers"
    __table_args__ = (
        Index("answers_by_shopper", "shopper", "answered_time_ms"),
        Index("answers_by_session", "session_id", "answered_time_ms"),
        Index(
            "answers_by_experiment",
            "experiment",
            "answered_time_ms",
            sqlite_where=text("experiment IS NOT NULL"),
            postgresql_where=text("experiment IS NOT NULL"),
        ),
    )

    attribution_token: Mapped[str] = mapped_column(String(64), primary_key=True)
    answered_time_ms: Mapped[int] = mapped_column(BigInteger, index=True)
    shopper: Mapped[str] = mapped_column(String(130))
    """`schema.shopper_key` of the request."""
    session_id: Mapped[str | None] = mapped_column(String(128))
    placement: Mapped[str] = mapped_column(String(64))
    release: Mapped[int]
    """0 where no model answered."""
    tier: Mapped[int]
    item_ids: Mapped[list[str]] = mapped_column(JSON)
    """As shown, first position first."""
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    features: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The model's inputs, by `features.answers.answer_features`; null where no model answered."""
    experiment: Mapped[str | None] = mapped_column(String(64))
    """Of the split that the shopper was in, if any; the columns below are set with it."""
    stage: Mapped[int | None] = mapped_column(BigInteger)
    """Of `traffic_changes`: the shares of that moment."""
    arm: Mapped[int | None]
    """The release that the shopper was to get; the live one stood in for it where its model failed."""
    model_failed: Mapped[bool | None]
    latency_ms: Mapped[float | None]
    """In the gateway, from the request to its answer."""


class Tombstone(Base):
    """A person who was erased; nothing of them is stored again."""

    __tablename__ = "tombstones"

    shopper_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    """HMAC-SHA256 of the shopper's key, in hexadecimal digits."""
    erased_time_ms: Mapped[int] = mapped_column(BigInteger)


class Item(Base):
    """One thing that the shop sells."""

    __tablename__ = "items"

    item_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    title: Mapped[str | None] = mapped_column(Text)
    category_path: Mapped[list[str]] = mapped_column(JSON)
    """From the root down."""
    brand: Mapped[str | None] = mapped_column(String(1000))
    price: Mapped[float | None]
    stock: Mapped[int | None] = mapped_column(BigInteger)
    """Pieces; null is not counted and taken as in stock."""
    attributes: Mapped[dict[str, Any]] = mapped_column(JSON)
    variant_group: Mapped[str | None] = mapped_column(String(128))
    age_restricted: Mapped[bool] = mapped_column(default=False)
    launch_time_ms: Mapped[int | None] = mapped_column(BigInteger)
    deleted: Mapped[bool] = mapped_column(default=False)
    """Kept as a row, so that the gateways that follow `revision` learn of it."""
    revision: Mapped[int] = mapped_column(BigInteger, index=True)
    """Grows with every change of any item, in commit order."""


class User(Base):
    """A person's attributes; all may be missing."""

    __tablename__ = "users"

    user_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    age: Mapped[int | None]
    gender: Mapped[str | None] = mapped_column(String(64))
    country: Mapped[str | None] = mapped_column(String(64))
    attributes: Mapped[dict[str, Any]] = mapped_column(JSON)
    updated_time_ms: Mapped[int] = mapped_column(BigInteger, index=True)
    """Followed by the stream worker, which keeps the online profiles current."""


class PlacementRule(Base):
    """What the shop's people decided about a placement: `features.shop.placement_rules`."""

    __tablename__ = "placement_rules"

    rule_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    placement: Mapped[str] = mapped_column(String(64))
    """Empty: everywhere."""
    action: Mapped[str] = mapped_column(String(8))
    """block, pin or boost."""
    items: Mapped[dict[str, Any]] = mapped_column(JSON)
    """The selector's fields that are set."""
    position: Mapped[int]
    """Of a pin; else 0."""
    amount: Mapped[float]
    """Of a boost; else 0."""
    start_time_ms: Mapped[int | None] = mapped_column(BigInteger)
    end_time_ms: Mapped[int | None] = mapped_column(BigInteger)


class ItemStatistic(Base):
    """How an item does, in all (`segment` empty) or in a segment such as `country:GB`."""

    __tablename__ = "item_statistics"

    item_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    segment: Mapped[str] = mapped_column(String(128), primary_key=True)
    views: Mapped[int] = mapped_column(BigInteger)
    carts: Mapped[int] = mapped_column(BigInteger)
    purchases: Mapped[int] = mapped_column(BigInteger)
    popularity: Mapped[float]
    """Weighted events, halved every `POPULARITY_HALF_LIFE_DAYS` of age."""
    computed_time_ms: Mapped[int] = mapped_column(BigInteger)


class Counter(Base):
    """A named number that one writer advances: a follower's durable position, the catalogue's revision."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class Release(Base):
    """A model, its vocabulary and its features as one thing."""

    __tablename__ = "releases"

    release: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[str] = mapped_column(String(16))
    """`features.releases.release_table.State`. At most one is live."""
    kept: Mapped[bool] = mapped_column(default=False)
    """Somebody asked that it be held ready beside the live one."""
    manifest: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_time_ms: Mapped[int] = mapped_column(BigInteger)


class ReleaseChange(Base):
    """Every change of a release's state, and whatever else was asked of it: who, when, why."""

    __tablename__ = "release_changes"

    change: Mapped[int] = mapped_column(Position, primary_key=True, autoincrement=True)
    release: Mapped[int]
    from_state: Mapped[str | None] = mapped_column(String(16))
    to_state: Mapped[str] = mapped_column(String(16))
    changed_time_ms: Mapped[int] = mapped_column(BigInteger)
    who: Mapped[str] = mapped_column(String(128))
    why: Mapped[str] = mapped_column(Text)


class TrafficSplit(Base):
    """Which releases answer at a placement, in what shares: `features.traffic.split.Split`."""

    __tablename__ = "traffic_splits"

    placement: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Empty: every placement without a split of its own."""
    experiment: Mapped[str] = mapped_column(String(64), unique=True)
    arms: Mapped[list[list[float]]] = mapped_column(JSON)
    """Release and percent of each."""
    canary: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    shadow: Mapped[int | None]
    stage: Mapped[int] = mapped_column(BigInteger)
    step: Mapped[int]
    stage_since_ms: Mapped[int] = mapped_column(BigInteger)
    since_ms: Mapped[int] = mapped_column(BigInteger)
    start_position: Mapped[int] = mapped_column(BigInteger)


class TrafficChange(Base):
    """Every change of a split: who, when, why, and the shares from then on."""

    __tablename__ = "traffic_changes"

    stage: Mapped[int] = mapped_column(Position, primary_key=True, autoincrement=True)
    placement: Mapped[str] = mapped_column(String(64))
    experiment: Mapped[str] = mapped_column(String(64), index=True)
    outcome: Mapped[str] = mapped_column(String(16))
    """set, grown, promoted, rolled_back or ended."""
    arms: Mapped[list[list[float]]] = mapped_column(JSON)
    shadow: Mapped[int | None]
    changed_time_ms: Mapped[int] = mapped_column(BigInteger)
    who: Mapped[str] = mapped_column(String(128))
    why: Mapped[str] = mapped_column(Text)


class ShadowStatistic(Base):
    """How a shadow's answers differ from those that were given; sums, that every gateway process adds to."""

    __tablename__ = "shadow_statistics"

    experiment: Mapped[str] = mapped_column(String(64), primary_key=True)
    shadow: Mapped[int] = mapped_column(primary_key=True)
    release: Mapped[int] = mapped_column(primary_key=True)
    """That answered."""
    compared: Mapped[int] = mapped_column(BigInteger)
    failed: Mapped[int] = mapped_column(BigInteger)
    dropped: Mapped[int] = mapped_column(BigInteger)
    overlap: Mapped[float]
    """Sum of the shares of the page that are in both."""
    correlation: Mapped[float]
    """Sum of Spearman's over the items in both."""
    correlated: Mapped[int] = mapped_column(BigInteger)
    """Pages with at least two items in both."""
    score_difference: Mapped[float]
    """Sum of the mean absolute difference over the items in both."""
    scored: Mapped[int] = mapped_column(BigInteger)
    """Pages with at least one item in both."""
    release_ms: Mapped[float]
    shadow_ms: Mapped[float]


class ApiKey(Base):
    """Who may call the gateway, and what: `server.access.key_table`."""

    __tablename__ = "api_keys"

    key_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    """Names it in lists and logs; no secret."""
    name: Mapped[str] = mapped_column(String(128))
    """Whose it is, for people."""
    secret_hash: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 of the secret, in hexadecimal digits."""
    scopes: Mapped[list[str]] = mapped_column(JSON)
    calls_per_s: Mapped[float]
    """0: no limit."""
    burst: Mapped[int]
    """Calls at once, before the rate holds; 0 where there is no limit."""
    created_time_ms: Mapped[int] = mapped_column(BigInteger)
    revoked_time_ms: Mapped[int | None] = mapped_column(BigInteger)
