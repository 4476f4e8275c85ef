"""Keys that a newer version of the gateway has made, beside which this one runs while they change over."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, update

from features.database.engine import open_database
from features.database.models import ApiKey
from features.settings import Settings
from server.access.key_ring import KeyRing
from server.access.key_table import KeyTable
from server.access.scopes import Scope
from server.errors import PermissionDenied, Unauthenticated
from server.following import Counters

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
