"""Checks and readings of what several requests share: shopper, context, filter, events."""

from __future__ import annotations

import time
from collections.abc import Sequence

from braid.v1 import event_pb2, placement_pb2, recommendation_pb2
from features.inputs.shopper import NO_CONTEXT, Context, ShopperEvent, ShopperQuery
from features.log.event_log import NewEvent
from features.schema import (
    DEFAULT_PAGE_SIZE,
    MAX_CATEGORY_LEVELS,
    MAX_CLOCK_SKEW_S,
    MAX_EXCLUDED_ITEMS,
    MAX_FILTER_VALUES,
    MAX_NAME_CHARS,
    MAX_PAGE_SIZE,
    MAX_PRICE,
    MAX_QUANTITY,
    MAX_TEXT_CHARS,
    MAX_TOKEN_CHARS,
    RECENT_EVENTS,
    EventType,
)
from server.queries import NO_FILTER, Caps, ItemFilter
from server.services.fields import Fields

_KNOWN_TYPES = frozenset(int(kind) for kind in EventType)


def now_ms() -> int:
    """The server's clock."""
    return time.time_ns() // 1_000_000


def shopper_query(
    fields: Fields,
    user_id: str,
    session_id: str,
    recent_events: Sequence[event_pb2.Event],
    context: recommendation_pb2.Context | None = None,
) -> ShopperQuery:
    """For whom and when."""
    moment_ms = now_ms()
    fields.shopper(user_id, session_id)
    events: list[ShopperEvent] = []
    if fields.count("recent_events", recent_events, RECENT_EVENTS):
        for number, event in enumerate(recent_events):
            read = new_event(fields.within(f"recent_events[{number}]"), event, moment_ms, shopper_inside=False)
            events.append(ShopperEvent(read.event_id, read.item_id or "", read.event_type, read.event_time_ms))
    return ShopperQuery(
        user_id=user_id,
        session_id=session_id,
        now_ms=moment_ms,
        context=NO_CONTEXT if context is None else _context(fields.within("context"), context),
        recent_events=tuple(events),
    )


def new_event(fields: Fields, event: event_pb2.Event, moment_ms: int, *, shopper_inside: bool = True) -> NewEvent:
    """One event; `shopper_inside` is False where the request names the shopper and the event's is ignored."""
    event_id = fields.text("event_id", event.event_id, required=True)
    kind = event.type
    if kind not in _KNOWN_TYPES:
        fields.refuse("type", f"is {kind}, 1 (VIEW) to 7 (SEARCH) are allowed")
    user_id, session_id = event.user_id, event.session_id
    if shopper_inside:
        fields.shopper(user_id, session_id)
    search = int(kind) == EventType.SEARCH
    item_id = fields.text("item_id", event.item_id, required=not search)
    if search and item_id:
        fields.refuse("item_id", "must be empty for SEARCH")
    time_ms = 0
    if event.HasField("event_time"):
        time_ms = fields.time_ms("event_time", event.event_time, moment_ms + 1000 * MAX_CLOCK_SKEW_S)
    else:
        fields.refuse("event_time", "is required")
    return NewEvent(
        event_id=event_id,
        event_type=kind,
        event_time_ms=time_ms,
        user_id=user_id or None,
        session_id=session_id or None,
        item_id=item_id or None,
        order_id=fields.text("order_id", event.order_id) or None,
        quantity=fields.number("quantity", event.quantity, 0.0, MAX_QUANTITY) or None,
        price=fields.number("price", event.price, 0.0, MAX_PRICE) or None,
        query=fields.text("query", event.query, MAX_TEXT_CHARS, required=search) or None,
        attribution_token=fields.text("attribution_token", event.attribution_token, MAX_TOKEN_CHARS) or None,
    )


def page_size(fields: Fields, value: int, default: int = DEFAULT_PAGE_SIZE, most: int = MAX_PAGE_SIZE) -> int:
    """0 is the default."""
    return fields.number("page_size", value, 0, most) or default


def caps(fields: Fields, message: recommendation_pb2.RecommendRequest) -> Caps:
    """How many items of one kind a page may have."""
    if message.category_level and not message.max_per_category:
        fields.refuse("category_level", "says nothing without max_per_category")
    return Caps(
        max_per_category=fields.number("max_per_category", message.max_per_category, 0, MAX_PAGE_SIZE),
        category_level=fields.number("category_level", message.category_level, 0, MAX_CATEGORY_LEVELS),
        max_per_brand=fields.number("max_per_brand", message.max_per_brand, 0, MAX_PAGE_SIZE),
    )


def item_filter(
    fields: Fields, request: recommendation_pb2.RecommendRequest | recommendation_pb2.SimilarItemsRequest
) -> ItemFilter:
    """What may be shown, by a request's field `filter`."""
    if not request.HasField("filter"):
        return NO_FILTER
    fields, message = fields.within("filter"), request.filter
    least, most = price_range(fields, message)
    for kind, around in (("categories", "/"), ("brands", "")):
        kept = {value.strip(around) for value in getattr(message, f"keep_{kind}")}
        for number, value in enumerate(getattr(message, f"drop_{kind}")):
            if value.strip(around) in kept:
                fields.refuse(f"drop_{kind}[{number}]", f"is in keep_{kind} as well; take it out of one of them")
    return ItemFilter(
        keep_categories=fields.texts("keep_categories", message.keep_categories, MAX_FILTER_VALUES, MAX_TEXT_CHARS),
        drop_categories=fields.texts("drop_categories", message.drop_categories, MAX_FILTER_VALUES, MAX_TEXT_CHARS),
        keep_brands=fields.texts("keep_brands", message.keep_brands, MAX_FILTER_VALUES),
        drop_brands=fields.texts("drop_brands", message.drop_brands, MAX_FILTER_VALUES),
        min_price=least,
        max_price=most,
        in_stock_only=message.in_stock_only,
        exclude_item_ids=fields.texts("exclude_item_ids", message.exclude_item_ids, MAX_EXCLUDED_ITEMS),
        exclude_purchased=message.exclude_purchased,
        repurchase_window_ms=fields.duration_ms("repurchase_window", message.repurchase_window)
        if message.HasField("repurchase_window")
        else None,
        allow_age_restricted=message.allow_age_restricted,
        exclude_shown_today=message.exclude_shown_today,
    )


def price_range(
    fields: Fields, message: recommendation_pb2.Filter | placement_pb2.ItemSelector
) -> tuple[float | None, float | None]:
    """Least and highest price, None where not set."""
    least = fields.number("min_price", message.min_price, 0.0, MAX_PRICE) if message.HasField("min_price") else None
    most = fields.number("max_price", message.max_price, 0.0, MAX_PRICE) if message.HasField("max_price") else None
    if least is not None and most is not None and least > most:
        fields.refuse("min_price", f"is {least:g}, above max_price {most:g}")
    return least, most


def _context(fields: Fields, message: recommendation_pb2.Context) -> Context:
    return Context(
        country=fields.text("country", message.country, MAX_NAME_CHARS),
        device=fields.text("device", message.device, MAX_NAME_CHARS),
        local_time_ms=fields.time_ms("local_time", message.local_time) if message.HasField("local_time") else None,
        page_category=fields.category("page_category", message.page_category),
        page_item_id=fields.text("page_item_id", message.page_item_id),
    )
