"""The story: a shopper, what Braid makes of them, and what five events of another taste change."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timezone
from uuid import uuid4

from google.protobuf.timestamp_pb2 import Timestamp
from rich.columns import Columns
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from braid.v1 import event_pb2, recommendation_pb2
from demo.protagonist import Past
from demo.storefront import Shown, Storefront
from features.schema import EventType

PAGE = 8
BAR = 24
TITLE_CHARS = 32
"""Of a title inside a reason."""
VISIBLE_S = 5.0
"""How long the story waits for written events to show in the answers."""

VERBS = {
    EventType.VIEW: "looked at",
    EventType.CART: "put in the cart",
    EventType.FAVOURITE: "marked as a favourite",
    EventType.PURCHASE: "bought",
    EventType.CLICK: "clicked on",
}
TIERS = {
    recommendation_pb2.TIER_FULL: "long-term and recent interest, fused",
    recommendation_pb2.TIER_RECENT: "recent events alone",
    recommendation_pb2.TIER_SEGMENT: "popular in the segment",
    recommendation_pb2.TIER_POPULAR: "popular in the shop",
}
Interest = recommendation_pb2.GetInterestsResponse.Interest
Reason = recommendation_pb2.RecommendResponse.Reason


def tell(console: Console, storefront: Storefront, past: Past) -> None:
    """Tells the whole story on `console`; writes five events of the shopper to the shop's log."""
    introduce(console, storefront, past)
    before = storefront.recommend(past.user_id, PAGE, explain=True)
    interests = storefront.interests(past.user_id)
    told = _interest_table([("lasting", interests.long_term), ("current", interests.current)])
    if told is not None:
        console.print("\n[bold]What they are interested in[/bold], as Braid sees it")
        console.print(told)
    console.print("\n[bold]What Braid recommends, and why[/bold]")
    console.print(_answer_table(storefront, before))
    console.print(_weight_line(before))
    _turn(console, storefront, past, before, interests)


def introduce(console: Console, storefront: Storefront, past: Past) -> None:
    """Who the shopper is and what they did."""
    user = storefront.user(past.user_id)
    facts = [
        f"{user.age} years" if user.HasField("age") else "",
        user.gender,
        f"from {user.country}" if user.country else "",
    ]
    who = ", ".join(fact for fact in facts if fact)
    console.rule(f"[bold]{escape(past.user_id)}[/bold]" + (f", {escape(who)}" if who else ""))
    days = max(1, round((past.last_ms - past.first_ms) / 86_400_000))
    console.print(
        f"In the shop since {_date(past.first_ms)}, last seen {_date(past.last_ms)}: "
        f"{past.events:,} {'purchases' if past.events == past.purchases else 'events'} in {days} days, "
        f"{past.purchases:,} items bought in {past.orders:,} orders."
    )
    parts = [_past_table(storefront, "Bought last", past.bought, verbs=False)]
    if past.looked:
        parts.append(_past_table(storefront, "Looked at last", past.looked, verbs=True))
    for part in parts:
        console.print(part)


def another_taste(storefront: Storefront, past: Past) -> list[Shown]:
    """Five items that belong together and are furthest from what the shopper likes, among what sells well."""
    strange = [item_id for item_id in past.popular if item_id not in past.touched][:200]
    if not strange:
        return storefront.show_all((past.popular * 5)[:5])
    least = storefront.ranked(past.user_id, strange)[::-1][:20]
    sells = {item_id: place for place, item_id in enumerate(past.popular)}
    for seed in sorted(least, key=lambda item_id: sells[item_id]):
        beside = [item_id for item_id in storefront.similar(seed, 8) if item_id not in past.touched]
        if len(beside) >= 4:
            return storefront.show_all([seed, *beside[:4]])
    return storefront.show_all((least * 5)[:5])


def _turn(
    console: Console,
    storefront: Storefront,
    past: Past,
    before: recommendation_pb2.RecommendResponse,
    interests_before: recommendation_pb2.GetInterestsResponse,
) -> None:
    """Five events of another taste, and what they change."""
    items = another_taste(storefront, past)
    repeats = sum(result.reason.strand == Reason.STRAND_REPEAT for result in before.results)
    new_only = repeats * 2 > len(before.results)
    if new_only:
        before = storefront.recommend(past.user_id, PAGE, explain=True, new_only=True)
    kinds = [EventType.VIEW, EventType.VIEW, EventType.CLICK, EventType.VIEW, EventType.CART]
    if not {int(EventType.VIEW), int(EventType.CART)} <= past.types:
        kinds = [EventType.PURCHASE] * len(items)  # a log of orders alone
    console.print()
    console.rule("[bold]Now they turn to something else[/bold]")
    events = _events(past.user_id, items, kinds)
    begin = time.perf_counter()
    statuses = storefront.write(events)
    acknowledged = time.perf_counter()
    refused = [status for status in statuses if status.code == event_pb2.EventStatus.CODE_INVALID]
    if refused:
        console.print(f"[red]The gateway refused an event: {refused[0].field}: {refused[0].description}[/red]")
        return
    visible_ms = _await_event(storefront, past.user_id, events[-1].event_time, acknowledged)
    for kind, item in zip(kinds, items, strict=True):
        console.print(f"  {VERBS[kind]} [cyan]{escape(item.title)}[/cyan]")
    seen = f"in the answers {visible_ms:.0f} ms later" if visible_ms is not None else "not in the answers yet"
    console.print(f"Five events, one WriteEvents call: durable after {(acknowledged - begin) * 1000:.0f} ms, {seen}.\n")
    after = storefront.recommend(past.user_id, PAGE, explain=True, new_only=new_only)
    if new_only:
        console.print("What they buy again stays; here is the rest, with what they have bought left out:")
    console.print(_side_by_side(storefront, before, after))
    console.print(_weight_line(after, before))
    interests = storefront.interests(past.user_id)
    told = _interest_table([("current, before", interests_before.current), ("current, now", interests.current)])
    if told is not None:
        console.print("\n[bold]Their interests now[/bold]")
        console.print(told)


def _events(user_id: str, items: Sequence[Shown], kinds: Sequence[EventType]) -> list[event_pb2.Event]:
    """The last event happens now, the others some seconds before."""
    story, now_ms = uuid4().hex[:12], int(time.time() * 1000)
    events = []
    for place, (item, kind) in enumerate(zip(items, kinds, strict=True)):
        moment = Timestamp()
        moment.FromMilliseconds(now_ms - (len(items) - 1 - place) * 20_000)
        bought = kind is EventType.PURCHASE
        events.append(
            event_pb2.Event(
                event_id=f"story-{story}-{place}",
                type=f"EVENT_TYPE_{kind.name}",
                user_id=user_id,
                session_id=f"story-{story}",
                item_id=item.item_id,
                event_time=moment,
                quantity=1.0 if bought else 0.0,
                price=(item.price or 0.0) if bought else 0.0,
                order_id=f"story-{story}" if bought else "",
            )
        )
    return events


def _await_event(storefront: Storefront, user_id: str, event_time: Timestamp, acknowledged: float) -> float | None:
    """Asks until an answer counts the event; the milliseconds from the acknowledgement to that answer."""
    while time.perf_counter() - acknowledged < VISIBLE_S:
        answer = storefront.recommend(user_id, PAGE)
        if answer.last_event_time.ToMilliseconds() >= event_time.ToMilliseconds():
            return (time.perf_counter() - acknowledged) * 1000
    return None


def _past_table(storefront: Storefront, title: str, rows: Sequence[tuple[str, int, int, int]], *, verbs: bool) -> Table:
    table = Table(
        title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), show_header=False, title_style="bold"
    )
    for _ in range(4):
        table.add_column(overflow="fold")
    for item_id, kind, time_ms, times in rows:
        item = storefront.show(item_id)
        often = f"{times} times" if times > 1 else ""
        verb = VERBS[EventType(kind)] if verbs else ""
        table.add_row(
            f"[dim]{_date(time_ms)}[/dim]", escape(item.title), f"[dim]{escape(item.category)}[/dim]", often or verb
        )
    return table


def _interest_table(lists: Sequence[tuple[str, Sequence[Interest]]]) -> Columns | None:
    """Lists of bars beside each other; None where the catalogue has no categories."""
    tables = [_bars(title, interests) for title, interests in lists if interests]
    return Columns(tables, padding=(0, 4)) if tables else None


def _bars(title: str, interests: Sequence[Interest]) -> Table:
    table = Table(
        title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), show_header=False, title_style="italic"
    )
    strongest = max(interest.strength for interest in interests)
    for interest in interests[:5]:
        bar = "█" * max(1, round(BAR / 2 * interest.strength / strongest))
        table.add_row(escape(interest.category_path[-1]), f"[green]{bar}[/green]", f"{interest.strength:.0%}")
    return table


def _answer_table(storefront: Storefront, answer: recommendation_pb2.RecommendResponse) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("", "item", "price", "why"):
        table.add_column(name, justify="right" if name == "price" else "left", overflow="fold")
    for place, result in enumerate(answer.results, 1):
        item = storefront.show(result.item_id)
        table.add_row(
            str(place), escape(item.title), _price(item), escape(why(storefront, result.item_id, result.reason))
        )
    return table


def _side_by_side(
    storefront: Storefront,
    before: recommendation_pb2.RecommendResponse,
    after: recommendation_pb2.RecommendResponse,
) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("", "before", "now", "why now"):
        table.add_column(name, overflow="fold")
    old = [result.item_id for result in before.results]
    for place in range(max(len(old), len(after.results))):
        left = escape(storefront.show(old[place]).title) if place < len(old) else ""
        right = reason = ""
        if place < len(after.results):
            result = after.results[place]
            right = escape(storefront.show(result.item_id).title)
            right = right if result.item_id in old else f"[bold green]{right}[/bold green]"
            reason = escape(why(storefront, result.item_id, result.reason))
        table.add_row(str(place + 1), f"[dim]{left}[/dim]", right, f"[dim]{reason}[/dim]")
    return table


def why(storefront: Storefront, item_id: str, reason: Reason) -> str:
    """A reason in words."""
    if reason.strand == Reason.STRAND_RECENT and reason.because_item_ids:
        because = reason.because_item_ids[0]
        return "seen just before" if because == item_id else f"goes with {_shortened(storefront.show(because).title)}"
    return {
        Reason.STRAND_LONG_TERM: "lasting taste",
        Reason.STRAND_RECENT: "what they do now",
        Reason.STRAND_REPEAT: "bought before, likely again",
        Reason.STRAND_POPULAR: "popular",
    }.get(reason.strand, "")


def _shortened(title: str) -> str:
    return title if len(title) <= TITLE_CHARS else title[: TITLE_CHARS - 1].rstrip() + "…"


def _weight_line(
    answer: recommendation_pb2.RecommendResponse, before: recommendation_pb2.RecommendResponse | None = None
) -> str:
    tier = TIERS.get(answer.tier, "")
    if not answer.HasField("long_term_weight"):
        return f"Answered from: {tier}."
    share = answer.long_term_weight
    bar = f"[blue]{'█' * round(BAR * share)}[/blue][yellow]{'█' * (BAR - round(BAR * share))}[/yellow]"
    was = (
        f" (before: {before.long_term_weight:.0%})"
        if before is not None and before.HasField("long_term_weight")
        else ""
    )
    return f"{bar}  lasting taste {share:.0%}{was}, recent acts {1 - share:.0%} · release {answer.release}, {tier}"


def _price(item: Shown) -> str:
    return "" if item.price is None else f"{item.price:,.2f}"


def _date(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, tz=timezone.utc):%Y-%m-%d}"
