"""The release table on SQLite and PostgreSQL: at most one release is live, and every change is kept."""

import os
import pwd
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from features.releases.release import Manifest, ReleaseError
from features.releases.release_table import ReleaseTable, Standing, who
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


def held_ready(engine: Engine) -> ReleaseTable:
    """A table in which release 1 is live, 2 and 3 are held ready, 4 is not."""
    table = ReleaseTable(engine)
    for number in (1, 2, 3, 4):
        table.record(number, manifest(number), "test", "made")
    table.change_state(1, "live", "test", "first")
    for number in (2, 3):
        table.load(number, "test", "to be tried")
    return table


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
        ("live", "retired", "release 2 goes live: better"),
    ]


def test_a_state_that_it_has_already_is_no_change(table: ReleaseTable) -> None:
    table.change_state(1, "live", "test", "first")
    table.change_state(1, "live", "test", "again")
    assert len(table.changes(1)) == 2


def test_a_standing_that_is_known_is_read_again_after_each_kind_of_change(engine: Engine) -> None:
    table = held_ready(engine)
    standing = table.standing()
    assert table.standing(standing) is standing
    for change in (
        lambda: table.load(4, "test", "to be tried"),
        lambda: table.change_state(2, "live", "test", "better"),
        lambda: table.change_state(3, "canary", "test", "to be tried"),
        lambda: table.change_state(4, "retired", "test", "not needed"),
        lambda: table.rollback("test", "worse"),
    ):
        before = standing
        change()
        standing = table.standing(before)
        assert standing is not before
        assert standing == table.standing()


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


def test_a_rollback_returns_to_what_was_live_before_and_not_to_what_failed(table: ReleaseTable) -> None:
    table.record(3, manifest(3), "test", "made")
    for number in (1, 2, 3):
        table.change_state(number, "live", "test", "next")
    assert table.standing() == Standing(live=3, previous=2)
    assert table.rollback("test", "worse") == (2, 3)
    assert [row.state for row in table.all()] == ["retired", "live", "failed"]
    assert table.changes(3)[-1].why == "release 2 goes live: worse"
    assert table.rollback("test", "worse still") == (1, 2)
    assert table.standing() == Standing(live=1, previous=None)
    with pytest.raises(ReleaseError, match="no release was live before 1 that has not failed since"):
        table.rollback("test", "once more")
    table.change_state(3, "live", "test", "mended")
    assert table.rollback("test", "again") == (1, 3)


def test_a_rollback_without_a_live_release_says_what_to_do(table: ReleaseTable) -> None:
    with pytest.raises(ReleaseError, match="no release is live; promote one"):
        table.rollback("test", "nothing there")


def test_the_live_release_cannot_be_retired_and_a_retired_one_is_not_returned_to(table: ReleaseTable) -> None:
    table.change_state(1, "live", "test", "first")
    table.change_state(2, "live", "test", "second")
    with pytest.raises(ReleaseError, match="release 2 is live"):
        table.retire(2, "test", "by mistake")
    table.change_state(1, "failed", "test", "its vectors are gone")
    assert table.standing().previous is None
    table.retire(1, "test", "for good")
    assert table.of(1).state == "retired"
    with pytest.raises(ReleaseError, match="there is no release 9"):
        table.of(9)


def test_a_release_is_held_ready_until_it_is_live_retired_or_failed(table: ReleaseTable) -> None:
    table.record(3, manifest(3), "test", "made")
    table.change_state(1, "live", "test", "first")
    for number in (2, 3):
        table.load(number, "test", "soon")
    assert table.standing().spares == (2, 3)
    table.load(2, "test", "again")
    assert [change.why for change in table.changes(2)] == ["made", "to be held ready: soon"]
    table.change_state(2, "live", "test", "now")
    assert table.standing().spares == (1, 3)
    table.retire(3, "test", "not now")
    table.retire(1, "test", "for good")
    assert table.standing() == Standing(live=2, previous=None)
    table.load(1, "test", "it was better")
    assert (table.of(1).state, table.of(1).kept) == ("candidate", True)


def test_a_canary_is_held_ready(table: ReleaseTable) -> None:
    table.change_state(1, "live", "test", "first")
    table.change_state(2, "canary", "test", "a few")
    assert table.standing().spares == (2,)


def test_what_was_live_before_is_held_anyway_and_stays_what_is_rolled_back_to(table: ReleaseTable) -> None:
    for number in (1, 2):
        table.change_state(number, "live", "test", "next")
    table.load(1, "test", "to be sure")
    assert table.standing() == Standing(live=2, previous=1)
    table.retire(1, "test", "it is worse than we thought")
    with pytest.raises(ReleaseError, match="no release was live before 2"):
        table.rollback("test", "back")


def test_a_refused_release_has_failed_and_the_one_that_serves_is_live_again(table: ReleaseTable) -> None:
    for number in (1, 2):
        table.change_state(number, "live", "test", "next")
    assert table.fail(2, 1, table.standing(), "gateway", "model.pt is not whole")
    assert [row.state for row in table.all()] == ["live", "failed"]
    assert table.changes(2)[-1].why == "model.pt is not whole"
    assert table.standing().previous is None


def test_a_refusal_that_comes_after_another_decision_changes_nothing(table: ReleaseTable) -> None:
    for number in (1, 2):
        table.change_state(number, "live", "test", "next")
    seen = table.standing()
    table.rollback("test", "a person was faster")
    table.change_state(2, "live", "test", "and has mended it")
    assert not table.fail(2, 1, seen, "gateway", "model.pt is not whole")
    assert table.live() == 2


def test_pages_go_from_the_newest_to_the_oldest(table: ReleaseTable) -> None:
    assert [row.release for row in table.page(None, 1)] == [2]
    assert [row.release for row in table.page(2, 5)] == [1]


def test_whoever_changes_a_release_is_known_where_the_environment_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert who() == pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    assert who() == "unknown"
