"""The table of users on both databases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl
import pytest

from features.database.engine import open_database
from features.importing.mapping import UsersMapping
from features.importing.storing import store_users
from features.shop.users import USER_COLUMNS, UserProfile, Users

PHONE = {"device": "phone"}


@pytest.fixture
def users(database_url: str) -> Iterator[Users]:
    engine = open_database(database_url)
    yield Users(engine)
    engine.dispose()


def test_a_profile_comes_back_as_it_went_in(users: Users) -> None:
    profile = UserProfile(user_id="ann 🍵", age=34, gender="female", country="GB", attributes={"club": "gold"})
    users.upsert([profile, UserProfile(user_id="bob")], updated_time_ms=5)
    found = users.get("ann 🍵")
    assert found == UserProfile(
        user_id="ann 🍵", age=34, gender="female", country="GB", attributes={"club": "gold"}, updated_time_ms=5
    )
    assert users.get("bob") == UserProfile(user_id="bob", updated_time_ms=5)
    assert users.get("cyd") is None


def test_a_second_profile_replaces_the_first(users: Users) -> None:
    users.upsert([UserProfile(user_id="ann", age=3, country="GB")], updated_time_ms=1)
    users.upsert([UserProfile(user_id="ann", age=4)], updated_time_ms=2)
    assert users.get("ann") == UserProfile(user_id="ann", age=4, updated_time_ms=2)


def test_only_the_named_fields_of_a_profile_are_replaced(users: Users) -> None:
    users.upsert([UserProfile(user_id="ann", age=3, country="GB", attributes=PHONE)], updated_time_ms=1)
    both = [UserProfile(user_id="ann", age=4, country="DE"), UserProfile(user_id="bob", age=5, country="FR")]
    users.upsert(both, updated_time_ms=2, fields=["age"])
    assert users.get("ann") == UserProfile(user_id="ann", age=4, country="GB", attributes=PHONE, updated_time_ms=2)
    assert users.get("bob") == UserProfile(user_id="bob", age=5, country="FR", updated_time_ms=2)


def test_what_the_gateway_changes_while_users_are_imported_stays(users: Users, database_url: str) -> None:
    users.upsert([UserProfile(user_id="ann", age=30, country="GB")])

    class Busy(Users):
        def of(self, user_ids: Sequence[str]) -> dict[str, UserProfile]:
            found = super().of(user_ids)
            users.upsert([UserProfile(user_id="ann", age=30, country="DE")])
            return found

    engine = open_database(database_url)
    rows = [{"id": name, "age": "31", "gender": None, "country": None, "attributes": None} for name in ("ann", "bob")]
    stored = store_users(Busy(engine), rows, UsersMapping.model_validate({"id": "id", "age": "age"}))
    engine.dispose()
    assert (stored.new, stored.changed) == (1, 1)
    assert users.frame().select("user_id", "age", "country").rows() == [("ann", 31, "DE"), ("bob", 31, None)]


def test_many_profiles_at_once(users: Users) -> None:
    users.upsert(
        [
            UserProfile(user_id=f"{number:04}", age=number % 90, attributes=PHONE if number == 7 else {})
            for number in range(1_500)
        ]
    )
    frame = users.frame()
    assert frame.height == 1_500
    assert dict(frame.schema) == USER_COLUMNS | {"device": pl.String()}
    assert frame.filter(pl.col("device") == "phone")["user_id"].to_list() == ["0007"]
    assert frame["device"].null_count() == 1_499
    assert len(users.of([f"{number:04}" for number in range(2_000)])) == 1_500


def test_nobody_is_ordinary(users: Users) -> None:
    users.upsert([])
    assert users.frame().is_empty()
    assert users.of([]) == {}
