"""A small shop for the gateway's tests: three tastes, sixty items, shoppers who keep to theirs."""

from __future__ import annotations

import random
import subprocess
import sys
from uuid import uuid4

from sqlalchemy import update

from features.database.engine import open_database
from features.database.models import Event
from features.log.event_log import EventLog, NewEvent
from features.offline.build import build
from features.schema import EventType
from features.settings import ROOT, Settings
from features.shop.catalogue import Catalogue, CatalogueItem
from features.shop.users import UserProfile, Users
from tests.processes import environment

TASTES = ("Garden", "Kitchen", "Music")
ITEMS_A_TASTE = 20
SHOPPERS = 60
NOW_MS = 1_790_000_000_000  # 2026-09-21
DAY_MS = 86_400_000


def item(taste: str, number: int) -> CatalogueItem:
    """One of the items of a taste."""
    return CatalogueItem(
        item_id=f"{taste.lower()}-{number:02}",
        title=f"{taste} thing number {number}",
        category_path=[taste, f"{taste} {'large' if number % 2 else 'small'}"],
        brand=f"{taste} brand {number % 4}",
        price=5.0 + number,
        stock=0 if number == 7 else 10,
        attributes={"colour": "red" if number % 3 else "blue"},
        variant_group=f"{taste}-variants" if number in (1, 2) else None,
        age_restricted=number == 11,
    )


def items() -> list[CatalogueItem]:
    """The whole catalogue."""
    return [item(taste, number) for taste in TASTES for number in range(ITEMS_A_TASTE)]


def taste_of(shopper: int) -> str:
    """What a shopper likes."""
    return TASTES[shopper % len(TASTES)]


def events(seed: int = 0) -> list[NewEvent]:
    """Sixty days of visits: views, and now and then a purchase, nine of ten within the shopper's taste."""
    draw = random.Random(seed)
    found = []
    for shopper in range(SHOPPERS):
        for visit in range(8):
            time_ms = NOW_MS - (60 - 7 * visit) * DAY_MS + draw.randrange(DAY_MS)
            for step in range(4):
                taste = taste_of(shopper) if draw.random() < 0.9 else draw.choice(TASTES)
                kind = EventType.PURCHASE if step == 3 else EventType.VIEW
                found.append(
                    event(
                        kind,
                        f"{taste.lower()}-{draw.randrange(ITEMS_A_TASTE):02}",
                        time_ms + step * 60_000,
                        f"user-{shopper}",
                    )
                )
    return found


def event(kind: EventType, item_id: str, time_ms: int, user_id: str | None, session_id: str | None = None) -> NewEvent:
    """One event with an id of its own."""
    return NewEvent(
        event_id=uuid4().hex,
        event_type=kind,
        event_time_ms=time_ms,
        user_id=user_id,
        session_id=session_id,
        item_id=item_id,
    )


def fill(settings: Settings) -> None:
    """Writes catalogue, users and events, and builds the features."""
    engine = open_database(settings.log_url)
    Catalogue(engine).upsert(items())
    Users(engine).upsert([UserProfile(user_id=f"user-{number}", age=20 + number, country="GB") for number in range(20)])
    EventLog(engine).append(events(), NOW_MS)
    with engine.begin() as connection:  # each arrived when it happened
        connection.execute(update(Event).values(arrival_time_ms=Event.event_time_ms))
    engine.dispose()
    build(settings)


def train_and_publish(settings: Settings) -> None:
    """A real release of the shop, by the commands that a person would use."""
    for arguments in (
        ["train", "--epochs", "12", "--threads", "1", "--max-minutes", "1"],
        ["publish", "--why", "a test"],
    ):
        command = [sys.executable, "-m", "training", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment(settings), capture_output=True, text=True)
        assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
