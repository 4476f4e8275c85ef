"""API keys in memory: those that a newer version has made while both run, and how often each may call."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, update

from features.database.engine import open_database
from features.database.models import ApiKey
from features.settings import Settings
from server.access.key_ring import Caller, KeyRing
from server.access.key_table import KeyTable
from server.access.scopes import Scope
from server.access.token_bucket import TokenBucket
from server.errors import Overloaded, PermissionDenied, Unauthenticated
from server.following import Counters
from tests.clock import Clock

RECOMMEND = "/braid.v1.RecommendationService/Recommend"


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """An engine on the shop's database."""
    engine = open_database(settings.log_url)
    yield engine
    engine.dispose()


def create(engine: Engine, *scopes: str) -> tuple[str, list[tuple[str, str]]]:
    """The id of a new key with these scopes, known or not, and the metadata that brings its secret."""
    key_id, secret = KeyTable(engine).create("a test", [], calls_per_s=0, burst=0)
    with engine.begin() as connection:
        connection.execute(update(ApiKey).where(ApiKey.key_id == key_id).values(scopes=list(scopes)))
    return key_id, [("authorization", f"Bearer {secret}")]


async def test_a_key_has_those_of_its_scopes_that_are_known_and_the_end_of_another_is_taken_in(engine: Engine) -> None:
    with ThreadPoolExecutor(1) as threads:
        ring = KeyRing(engine, Counters(engine, threads), threads, open_without_keys=True)
        _, both = create(engine, "reporting", "storefront")
        _, new = create(engine, "reporting")
        revoked_id, revoked = create(engine, "storefront")
        await ring.refresh()
        assert ring.caller(both).scopes == {Scope.STOREFRONT}
        ring.caller(both).check_scope(RECOMMEND)
        with pytest.raises(PermissionDenied, match="has none that this version knows"):
            ring.caller(new).check_scope(RECOMMEND)
        assert ring.caller(revoked)
        KeyTable(engine).revoke(revoked_id)
        await ring.refresh()
        with pytest.raises(Unauthenticated):
            ring.caller(revoked)


def test_a_key_that_has_rested_may_call_at_once_as_often_as_its_burst_says_and_no_more() -> None:
    clock = Clock()
    bucket = TokenBucket(2.0, 3, clock)
    for rest_s, waits_s in ((0, [0, 0, 0, 0.5]), (0.25, [0.25]), (0.25, [0, 0.5]), (3_600, [0, 0, 0, 0.5])):
        clock.now_s += rest_s
        assert [bucket.take() for _ in waits_s] == waits_s
    with pytest.raises(Overloaded, match="key k may call 2 times a second; send again later") as refused:
        Caller("k", "hash", frozenset(), bucket).check_rate()
    assert refused.value.retry_after_s == 0.5


async def test_a_key_keeps_what_its_bucket_holds_while_others_come_and_go(engine: Engine) -> None:
    with ThreadPoolExecutor(1) as threads:
        ring = KeyRing(engine, Counters(engine, threads), threads, open_without_keys=True)
        _, secret = KeyTable(engine).create("a test", [Scope.STOREFRONT], calls_per_s=0.001, burst=1)
        await ring.refresh()
        caller = ring.caller([("authorization", f"Bearer {secret}")])
        caller.check_rate()
        create(engine, "storefront")
        await ring.refresh()
        with pytest.raises(Overloaded) as refused:
            ring.caller([("authorization", f"bearer  {secret}")]).check_rate()
        assert 900 < refused.value.retry_after_s <= 1_000 and ring.in_force(caller)
