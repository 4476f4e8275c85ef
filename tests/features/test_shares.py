"""Workers divide the shoppers: each share has one owner, whoever comes, goes or is cut off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import pytest
from sqlalchemy import Engine, text

from features import store
from features.database.engine import open_database
from features.locks import LockTaken
from features.log.event_log import EventLog
from features.settings import Settings
from features.stream.log_follower import LogFollower
from features.stream.shares import EVERY_SHARE, SHARES, DividedShares, SoleShares, join, share_of
from features.stream.stream_positions import save_positions, share_positions, stream_position
from tests.features.shops import fill, random_events

NewSettings = Callable[..., Settings]


@pytest.fixture
def shop(new_settings: NewSettings, postgres_url: str) -> Settings:
    """A shop whose workers divide the shoppers."""
    settings = new_settings(database_url=postgres_url)
    open_database(settings.log_url).dispose()
    return settings


def settle(workers: Sequence[DividedShares]) -> list[int]:
    """Lets each have two turns, and counts what each has then."""
    for worker in [*workers, *workers]:
        worker.give_up(worker.surplus())
        worker.take()
    return [len(worker.owned) for worker in workers]


def assert_divided(workers: Sequence[DividedShares]) -> None:
    owned = [share for worker in workers for share in worker.owned]
    assert sorted(owned) == sorted(EVERY_SHARE)


def test_shoppers_spread_over_the_shares_and_stay_where_they_are() -> None:
    counts = [0] * SHARES
    for number in range(16_000):
        counts[share_of(f"u:{number}")] += 1
    assert min(counts) > 800 and max(counts) < 1_200
    assert [share_of("u:1"), share_of("s:🪑")] == [10, 0]


def test_shares_go_to_whoever_is_there(shop: Settings) -> None:
    first = DividedShares(shop)
    assert settle([first]) == [16]
    second, third = DividedShares(shop), DividedShares(shop)
    assert settle([first, second, third]) == [6, 6, 4]
    assert_divided([first, second, third])
    first.close()
    assert settle([second, third]) == [8, 8]
    assert_divided([second, third])
    for worker in (second, third):
        worker.close()


def test_one_who_is_cut_off_loses_the_shares_and_learns_it_before_writing(shop: Settings) -> None:
    first, second = DividedShares(shop), DividedShares(shop)
    settle([first, second])
    with closing(second):
        cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = 6216419 "
        with first._engine.connect() as connection:
            pid = first._connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            connection.execute(text(cut + "AND pid = :pid"), {"pid": pid})
        with pytest.raises(Exception, match="terminat"), first.writing():
            raise AssertionError("it wrote without its shares")
        first.close()
        assert settle([second]) == [16]


def test_a_sqlite_shop_has_one_worker(settings: Settings) -> None:
    with closing(join(settings)) as sole:
        assert isinstance(sole, SoleShares) and sole.owned == EVERY_SHARE
        with pytest.raises(LockTaken):
            join(settings)


def test_positions_of_shares_begin_where_one_worker_was_and_never_go_back(engine: Engine) -> None:
    save_positions(engine, dict.fromkeys(EVERY_SHARE, 100))
    assert share_positions(engine) == dict.fromkeys(EVERY_SHARE, 100)
    save_positions(engine, {3: 150, 4: 90})
    assert share_positions(engine)[3] == 150
    assert share_positions(engine)[4] == stream_position(engine) == 100
    save_positions(engine, dict.fromkeys(EVERY_SHARE, 120))
    assert share_positions(engine)[3] == 150
    assert stream_position(engine) == 120


def test_a_share_that_is_behind_catches_up_in_its_new_owners_hands(shop: Settings) -> None:
    engine = fill(shop, random_events(80, seed=1))
    store.apply(shop)
    save_positions(engine, {share: 80 for share in EVERY_SHARE if share != 5})
    with closing(DividedShares(shop)) as shares, store.opened(shop) as feast:
        follower = LogFollower(engine, feast, shares)
        follower.share()
        assert sorted(follower.positions.values())[:2] == [0, 80]
        assert follower.follow() >= 80  # and both sides of each sign-in
        assert set(follower.positions.values()) == {EventLog(engine).last_position()}
        assert follower.follow() == 0
    engine.dispose()
