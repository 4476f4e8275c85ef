"""The release table on SQLite and PostgreSQL: at most one release is live, and every change is kept."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from features.release import Manifest, ReleaseError
from features.releases import ReleaseTable
from features.schema import feature_service, interest_view, schema_hash


def manifest(release: int) -> Manifest:
    return Manifest(
        release=release,
        created_time="2026-06-01T00:00:00+00:00",
        schema_hash=schema_hash(),
        interest_dim=8,
        item_count=3,
        config={},
        data_window={},
        metrics={"ndcg@10": 0.5},
        baselines={},
        feature_service=feature_service(release),
        feature_view=interest_view(release),
        torch_version="2",
        files={},
    )


@pytest.fixture
def table(engine: Engine) -> ReleaseTable:
    table = ReleaseTable(engine)
    for number in (1, 2):
        table.record(number, manifest(number), "test", "made")
    return table


def test_an_empty_table_has_no_live_release_and_numbers_from_one(engine: Engine) -> None:
    table = ReleaseTable(engine)
    assert (table.live(), table.next_number(), table.all()) == (None, 1, [])


def test_a_release_that_goes_live_retires_the_one_before(table: ReleaseTable) -> None:
    table.change_state(1, "live", "test", "first")
    table.change_state(2, "live", "test", "better")
    assert table.live() == 2
    assert [row.state for row in table.all()] == ["retired", "live"]
    assert [(change.from_state, change.to_state, change.why) for change in table.changes(1)] == [
        (None, "candidate", "made"),
        ("candidate", "live", "first"),
        ("live", "retired", "release 2 goes live"),
    ]


def test_a_state_that_it_has_already_is_no_change(table: ReleaseTable) -> None:
    table.change_state(1, "live", "test", "first")
    table.change_state(1, "live", "test", "again")
    assert len(table.changes(1)) == 2


def test_the_manifest_comes_back(table: ReleaseTable) -> None:
    assert table.all()[1].manifest == manifest(2).to_json()
    assert table.next_number() == 3


def test_numbers_and_states_that_do_not_exist_are_refused(table: ReleaseTable) -> None:
    with pytest.raises(ReleaseError, match="release 2 is recorded already"):
        table.record(2, manifest(2), "test", "twice")
    with pytest.raises(ReleaseError, match="no release 7"):
        table.change_state(7, "live", "test", "missing")
    with pytest.raises(ReleaseError, match="'gone' is none of"):
        table.change_state(1, "gone", "test", "no such state")  # type: ignore[arg-type]


def test_promotions_at_the_same_time_leave_one_release_live(table: ReleaseTable) -> None:
    for number in range(3, 9):
        table.record(number, manifest(number), "test", "made")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: table.change_state(number, "live", "test", "race"), range(1, 9)))
    assert [row.state for row in table.all()].count("live") == 1
