"""Nothing of an erased person is stored again, whoever brings it."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, insert, select

from features.answers.answers import NewAnswer, answer_row, append_answers
from features.database.engine import DatabaseError, open_database
from features.database.models import Answer, Event, Tombstone
from features.erasure.erase import erase
from features.erasure.tombstones import KEY_FILE, ErasureKeyError, Tombstones, hold
from features.importing.importer import import_files
from features.inputs.shopper import ShopperQuery
from features.log.event_log import EventLog, Outcome
from features.settings import Settings, load_settings
from features.shop.users import ErasedUsers, UserProfile, Users
from tests.features.erasable import event_of
from tests.features.shops import now_ms


@pytest.fixture
def shop(new_settings: Callable[..., Settings], database_url: str) -> Settings:
    """A shop on either database."""
    return new_settings(database_url=database_url)


def test_late_events_of_the_person_and_of_their_sessions_are_refused_and_others_kept(
    shop: Settings, engine: Engine
) -> None:
    log = EventLog(engine, Tombstones(shop))
    assert log.append([event_of("1", "ann", "visit"), event_of("2", None, "walk")], 1) == [Outcome.STORED] * 2
    erase(shop, user_id="ann")
    erase(shop, session_id="walk")
    late = [
        event_of("1", "ann", None),
        event_of("3", "ann", "new visit"),
        event_of("4", None, "visit"),
        event_of("5", "bob", "visit"),
        event_of("6", None, "walk"),
        event_of("7", "bob", "other visit"),
        event_of("7", "bob", "other visit"),
        event_of("8", "anna", None),
    ]
    outcomes = log.append(late, 2)
    assert outcomes == [Outcome.ERASED] * 5 + [Outcome.STORED, Outcome.DUPLICATE, Outcome.STORED]
    assert log.append(late[:5], 3) == [Outcome.ERASED] * 5
    assert log.read_after(0, 10)["event_id"].to_list() == ["7", "8"]


def test_whoever_waits_for_an_erasure_is_told_of_each_part(shop: Settings, engine: Engine) -> None:
    parts: list[str] = []
    erase(shop, user_id="ann", note=parts.append)
    assert parts[:4] == ["the database", "the online store", "the offline files", "the database's files"]


def test_answers_that_waited_while_their_shopper_was_erased_are_not_stored(shop: Settings, engine: Engine) -> None:
    waiting = [waiting_answer(*asked) for asked in (("ann", ""), ("bob", ""), ("eve", "walk"))]
    erase(shop, user_id="ann")
    erase(shop, session_id="walk")
    with engine.begin() as connection:
        append_answers(connection, Tombstones(shop), waiting)
    with engine.connect() as connection:
        assert list(connection.scalars(select(Answer.shopper))) == ["u:bob"]


def waiting_answer(user_id: str, session_id: str) -> dict[str, Any]:
    """The row of an answer to somebody that is still to be stored."""
    answer = NewAnswer(
        attribution_token=f"token for {user_id} {session_id}",
        query=ShopperQuery(user_id=user_id, session_id=session_id, now_ms=now_ms()),
        placement="",
        options={},
        release=0,
        tier=4,
        item_ids=["a"],
        stored=True,
        inputs=None,
    )
    return answer_row(answer)


def test_who_has_no_session_is_not_in_an_erased_session_whose_id_is_the_word_none(
    shop: Settings, engine: Engine
) -> None:
    erase(shop, session_id="None")
    events = [event_of("1", "ann", None), event_of("2", "ann", "None"), event_of("3", None, "None")]
    outcomes = EventLog(engine, Tombstones(shop)).append(events, 1)
    assert outcomes == [Outcome.STORED, Outcome.ERASED, Outcome.ERASED]
    with engine.begin() as connection:
        append_answers(connection, Tombstones(shop), [waiting_answer("ann", ""), waiting_answer("bob", "None")])
    with engine.connect() as connection:
        assert list(connection.scalars(select(Answer.shopper))) == ["u:ann"]


def test_a_writer_without_tombstones_writes_nothing_once_somebody_was_erased(shop: Settings, engine: Engine) -> None:
    assert EventLog(engine).append([event_of("1", "bob", None)], 1) == [Outcome.STORED]
    erase(shop, user_id="ann")
    with pytest.raises(DatabaseError, match="must be given its Tombstones"):
        EventLog(engine).append([event_of("2", "bob", None)], 1)
    with pytest.raises(DatabaseError, match="must be given its Tombstones"):
        Users(engine).upsert([UserProfile(user_id="bob")])
    assert EventLog(engine).last_position() == 1


def test_an_event_that_was_being_written_when_the_erasure_began_is_erased(shop: Settings, engine: Engine) -> None:
    erasing = threading.Thread(target=erase, args=(shop,), kwargs={"user_id": "ann"})
    with engine.begin() as connection:
        hold(connection)
        erasing.start()
        values = {"event_id": "1", "shopper": "u:ann", "event_type": 1, "event_time_ms": 1, "arrival_time_ms": 1}
        connection.execute(insert(Event).values(values))
    erasing.join()
    assert EventLog(engine).last_position() == 0
    assert EventLog(engine, Tombstones(shop)).append([event_of("2", "ann", None)], 1) == [Outcome.ERASED]


def test_attributes_of_an_erased_user_are_refused_with_all_of_their_batch(shop: Settings, engine: Engine) -> None:
    erase(shop, user_id="ann")
    users = Users(engine, Tombstones(shop))
    with pytest.raises(ErasedUsers) as refused:
        users.upsert([UserProfile(user_id="bob"), UserProfile(user_id="ann")])
    assert refused.value.user_ids == {"ann"}
    assert users.of(["ann", "bob"]) == {}
    users.upsert([UserProfile(user_id="bob")])
    assert users.get("bob") is not None


def test_an_import_passes_over_erased_persons_and_says_so(shop: Settings, engine: Engine, tmp_path: Path) -> None:
    file, people = tmp_path / "events.csv", tmp_path / "users.csv"
    file.write_text(
        "user,visit,item,kind,time\nann,v1,cup,view,2024-05-01T10:00:00Z\nbob,v2,cup,view,2024-05-01T10:01:00Z\n"
        ",v1,pot,view,2024-05-01T10:02:00Z\nbob,v1,pot,view,2024-05-01T10:03:00Z\n"
    )
    people.write_text("id,age\nann,30\nbob,40\n")
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(
        "events: {user: user, session: visit, item: item, time: {column: time}, type: {column: kind}}\n"
        "users: {source: file, id: id, age: age}\n"
    )
    EventLog(engine).append([event_of("1", "ann", "v1")], 1)
    erase(shop, user_id="ann")
    engine.dispose()  # the import's own SQLite must be alone with the file in this process
    report = import_files(shop, file, mapping=str(mapping), users=people)
    assert [(section.new, section.rejected) for section in report.sections] == [(1, {"erased": 3}), (1, {"erased": 1})]
    assert EventLog(engine).read_after(0, 10)["shopper"].to_list() == ["u:bob"]
    assert Users(engine).frame()["user_id"].to_list() == ["bob"]


def test_the_table_holds_hashes_under_a_key_that_only_its_owner_reads(shop: Settings, engine: Engine) -> None:
    erase(shop, user_id="ann")
    with engine.connect() as connection:
        (stored,) = connection.scalars(select(Tombstone.shopper_hash))
    path = shop.home / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(stored) == 64 and len(path.read_text()) == 64
    given = shop.model_copy(update={"erasure_key": SecretStr(path.read_text())})
    with engine.connect() as connection:
        assert Tombstones(given).erased(connection, ["u:ann", "u:bob"]) == {"u:ann"}


def test_another_key_is_said_and_nothing_is_written_under_it(shop: Settings, engine: Engine) -> None:
    erase(shop, user_id="ann")
    Tombstones(shop).check(engine)
    (shop.home / KEY_FILE).unlink()
    for other in (shop, shop.model_copy(update={"erasure_key": SecretStr("k" * 32)})):
        with pytest.raises(ErasureKeyError, match="set BRAID_ERASURE_KEY to that key"):
            Tombstones(other).check(engine)
        with pytest.raises(ErasureKeyError):
            EventLog(engine, Tombstones(other)).append([event_of("1", "bob", None)], now_ms())
        with pytest.raises(ErasureKeyError):
            erase(other, user_id="bob")
    assert EventLog(engine).last_position() == 0
    assert not (shop.home / KEY_FILE).exists()


def test_a_short_key_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAID_ERASURE_KEY", "secret")
    with pytest.raises(SystemExit, match="^BRAID_ERASURE_KEY: .*fewer than 32 characters") as refused:
        load_settings()
    assert "'secret'" not in str(refused.value)


def test_an_unknown_person_can_be_erased_before_they_come(settings: Settings) -> None:
    erase(settings, user_id="ann")
    engine = open_database(settings.log_url)
    assert EventLog(engine, Tombstones(settings)).append([event_of("1", "ann", None)], 1) == [Outcome.ERASED]
    engine.dispose()
    with pytest.raises(ValueError, match="either user_id or session_id"):
        erase(settings)
