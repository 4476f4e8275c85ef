"""Answers are remembered as they were, and what cannot be is dropped and counted, never waited for."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine, func, select, text

from braid.v1 import event_pb2
from braid.v1 import recommendation_pb2 as rec
from features import store
from features.answers.answer_features import OtherSchema, decode, encode
from features.answers.answers import RANKED, NewAnswer, answer_row, append_answers, shopper_query
from features.database.engine import open_database
from features.database.models import Answer
from features.inputs.fusion_inputs import SHOPPER_INPUTS
from features.inputs.shopper import Context, ShopperEvent, ShopperQuery
from features.releases.release import read_release
from features.schema import OWN_ITEMS, PADDING, RECENT_EVENTS, UNKNOWN, EventType
from features.settings import ROOT
from server.record.answer_recorder import MOST_BYTES, AnswerRecorder
from tests.conditions import eventually
from tests.conftest import NewSettings
from tests.features.shops import NOBODY_ERASED
from tests.processes import environment, free_ports
from tests.server.client import Client, RunningGateway, gateway, ids, new_event

DIM = 5
NOW_MS = 1_790_000_000_000
DAY_MS = 86_400_000


def inputs(seed: int = 0, *, events: int = 20, bought: int = 30) -> list[np.ndarray[Any, Any]]:
    """Arrays of the schema's shapes and types at random, for so many events and own items; each third is unknown."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for tensor in SHOPPER_INPUTS:
        shape = tuple(DIM if size == -1 else size for size in tensor.dims)
        drawn = np.abs(rng.normal(scale=1000, size=shape)) + 1
        arrays[tensor.name] = drawn.astype(np.float32 if tensor.dtype == "FP32" else np.int32)
    recent, own = np.arange(RECENT_EVENTS) < RECENT_EVENTS - events, np.arange(OWN_ITEMS) >= bought
    arrays["recent_items"][::3] = UNKNOWN
    for name in ("recent_items", "recent_types", "recent_ages"):
        arrays[name][recent] = PADDING if name == "recent_items" else 0
    arrays["recent_content"][arrays["recent_items"] != UNKNOWN] = 0
    own[:OWN_ITEMS:3] = True  # not known to the release: padding among the others
    arrays["own_items"][own], arrays["own_features"][own] = PADDING, 0
    return list(arrays.values())


def answer(seed: int = 0, *, now_ms: int = NOW_MS, **fields: Any) -> NewAnswer:
    """An answer of the model to somebody."""
    query = ShopperQuery(
        user_id="anna",
        session_id="visit",
        now_ms=now_ms,
        context=Context(country="GB", local_time_ms=now_ms + 1, page_category=("Home", "Kitchen")),
        recent_events=(ShopperEvent("e1", "i1", EventType.CART, now_ms - 5),),
    )
    values: dict[str, Any] = {
        "attribution_token": uuid4().hex,
        "query": query,
        "placement": "home",
        "options": {"filter": {"min_price": 3.5, "keep_brands": ("a",)}, "page_size": 2, "diversity": 0.0},
        "release": 3,
        "tier": 1,
        "item_ids": ["b", "a"],
        "stored": True,
        "inputs": inputs(seed),
    }
    return NewAnswer(**(values | fields))


def dropped(reason: str) -> float:
    return REGISTRY.get_sample_value("braid_answers_dropped_total", {"reason": reason}) or 0.0


def recorded() -> float:
    return REGISTRY.get_sample_value("braid_answers_recorded_total") or 0.0


def count(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(Answer)) or 0


@contextmanager
def locked(engine: Engine) -> Iterator[None]:
    """Another process that writes to the SQLite file, and takes its time."""
    other = sqlite3.connect(str(engine.url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


@pytest.mark.parametrize(("events", "bought"), [(20, 30), (0, 0), (1, 0), (0, 2), (RECENT_EVENTS, OWN_ITEMS)])
def test_features_are_decoded_as_they_were_encoded(events: int, bought: int) -> None:
    arrays = inputs(events=events, bought=bought)
    found = decode(encode(arrays))
    for tensor, array in zip(SHOPPER_INPUTS, arrays, strict=True):
        assert found[tensor.name].dtype == array.dtype and found[tensor.name].shape == array.shape
        assert np.array_equal(found[tensor.name], array)


def test_features_of_another_schema_are_refused() -> None:
    with pytest.raises(OtherSchema):
        decode(b"\0" + encode(inputs())[1:])


def test_answers_are_recorded_as_they_were_and_those_that_wait_at_the_end_too(engine: Engine) -> None:
    recorder = AnswerRecorder(engine, NOBODY_ERASED, max_answers=100, retention_days=1e6)
    answers = [answer(seed) for seed in range(30)]
    answers.append(answer(inputs=None, release=0, tier=4, stored=False))
    for one in answers:
        recorder.record(one)
    recorder.close()
    with engine.connect() as connection:
        rows = {row.attribution_token: row for row in connection.execute(select(Answer.__table__))}
    assert len(rows) == len(answers)
    for one in answers:
        row = rows[one.attribution_token]
        assert (row.answered_time_ms, row.shopper, row.session_id) == (NOW_MS, "u:anna", "visit")
        assert (row.placement, row.release, row.tier, row.item_ids) == ("home", one.release, one.tier, ["b", "a"])
        assert shopper_query(row.request, row.answered_time_ms) == one.query
        assert row.request["filter"] == {"min_price": 3.5, "keep_brands": ["a"]}
        assert row.request["stored"] == one.stored
        if one.inputs is None:
            assert row.features is None
        else:
            assert all(map(np.array_equal, decode(row.features).values(), one.inputs))


@pytest.mark.parametrize("local_time_ms", [None, 0, 1])
def test_a_context_is_read_back_as_it_was(local_time_ms: int | None) -> None:
    query = ShopperQuery(user_id="anna", session_id="", now_ms=NOW_MS, context=Context(local_time_ms=local_time_ms))
    request = answer_row(answer(query=query))["request"]
    assert shopper_query(request, NOW_MS) == query
    assert ("context" in request) == (local_time_ms is not None)


def test_a_locked_database_fills_the_queue_and_no_more(settings_engine: Engine) -> None:
    recorder = AnswerRecorder(settings_engine, NOBODY_ERASED, max_answers=3, retention_days=1e6)
    before, written = dropped("queue"), recorded()
    sent = 0
    with locked(settings_engine):
        while dropped("queue") < before + 5:  # each call returns, whatever the database does
            recorder.record(answer())
            sent += 1
    recorder.close()
    lost = dropped("queue") - before
    assert count(settings_engine) == recorded() - written == sent - lost


LONG = {
    "filter": {"options": {"filter": {"keep_categories": ("x" * 10_000,) * 100}, "page_size": 10}},
    "ranked items": {"options": {RANKED: ["x" * 1_000] * 1_000}},
    "recent events": {
        "query": ShopperQuery(
            user_id="anna",
            session_id="",
            now_ms=NOW_MS,
            recent_events=(ShopperEvent("e" * 128, "i" * 128, EventType.VIEW, NOW_MS),) * 2_000,
        )
    },
}


@pytest.mark.parametrize("long", LONG)
def test_long_answers_fill_the_queue_before_they_are_many(settings_engine: Engine, long: str) -> None:
    """Each of about a megabyte."""
    recorder = AnswerRecorder(settings_engine, NOBODY_ERASED, max_answers=5_000, retention_days=1e6)
    before, sent = dropped("queue"), 0
    with locked(settings_engine):
        while dropped("queue") == before:
            recorder.record(answer(inputs=None, **LONG[long]))
            sent += 1
    assert MOST_BYTES / 2**20 <= sent <= 1.1 * MOST_BYTES / 2**20 + 1
    eventually(lambda: count(settings_engine) == sent - 1, what="the record of what was taken")

    def taken() -> bool:
        before = dropped("queue")
        recorder.record(answer())
        return dropped("queue") == before

    eventually(taken, what="room for another one")
    recorder.close()
    assert count(settings_engine) == sent


def test_a_failing_database_drops_what_is_counted_and_says_so_once(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    before, written = dropped("database"), recorded()
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE answers RENAME TO away"))
    with caplog.at_level(logging.INFO, "server.record.answer_recorder"):
        recorder = AnswerRecorder(engine, NOBODY_ERASED, max_answers=100, retention_days=1e6)
        for turn in range(1, 4):
            recorder.record(answer())
            eventually(lambda turn=turn: dropped("database") == before + turn, what="the drop")  # type: ignore[misc]
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE away RENAME TO answers"))
        recorder.record(answer())
        recorder.close()
    assert count(engine) == recorded() - written == 1
    messages = [record.message for record in caplog.records]
    assert len(messages) == 2
    assert "not recorded until" in messages[0] and messages[1] == "answers are recorded again; 3 were not"


def test_an_answer_that_makes_no_row_is_dropped_alone(engine: Engine) -> None:
    before = dropped("database")
    recorder = AnswerRecorder(engine, NOBODY_ERASED, max_answers=100, retention_days=1e6)
    good = [answer(), answer()]
    for one in (good[0], answer(inputs=()), good[1]):
        recorder.record(one)
    recorder.close()
    assert count(engine) == len(good)
    assert dropped("database") == before + 1
    assert recorder.unwritten_item_ids(["u:anna"], "visit", 0) == set()


def test_answers_past_the_retention_are_deleted_however_many_they_are(engine: Engine) -> None:
    with engine.begin() as connection:
        old = [answer_row(answer(inputs=None, now_ms=NOW_MS - 400 * DAY_MS)) for _ in range(2_500)]
        append_answers(connection, NOBODY_ERASED, [*old, answer_row(answer(now_ms=2**41))])
    recorder = AnswerRecorder(engine, NOBODY_ERASED, max_answers=1, retention_days=30)
    eventually(lambda: count(engine) == 1, what="the deletion of old answers")
    recorder.close()


def test_the_gateway_records_what_it_answers(client: Client, released_shop: RunningGateway) -> None:
    engine = open_database(released_shop.settings.log_url)
    sent = [new_event(event_pb2.EVENT_TYPE_VIEW, f"music-{number:02}") for number in range(3)]
    sent.append(new_event(event_pb2.EVENT_TYPE_CART, "unheard-of"))
    shown = client.recommend(
        "user-4",
        session_id="s-4",
        placement="basket",
        recent_events=sent,
        filter=rec.Filter(drop_brands=["Music brand 1"]),
        explain=True,
    )
    ranked = client.recommendations.Rank(rec.RankRequest(user_id="user-4", item_ids=["garden-02", "garden-01"]))

    def row(token: str) -> Any:
        with engine.connect() as connection:
            return connection.execute(select(Answer.__table__).where(Answer.attribution_token == token)).one_or_none()

    first = eventually(lambda: row(shown.attribution_token), what="the record of the answer")
    second = eventually(lambda: row(ranked.attribution_token), what="the record of the ranking")
    engine.dispose()
    assert (first.shopper, first.session_id, first.placement) == ("u:user-4", "s-4", "basket")
    assert (first.release, first.tier, first.item_ids) == (shown.release, shown.tier, ids(shown.results))
    assert first.request["filter"] == {"drop_brands": ["Music brand 1"]}
    assert [event[0] for event in first.request["recent_events"]] == [event.event_id for event in sent]
    seen = decode(first.features)
    files = read_release(released_shop.settings.model_repository / "fusion" / "1")
    known = dict(zip(files.items["item_id"], range(files.items.height), strict=True))
    expected = [known.get(event.item_id, UNKNOWN) for event in sent]
    assert seen["recent_items"][-4:].tolist() == expected
    assert seen["recent_types"][-4:].tolist() == [1, 1, 1, 2]
    assert seen["long_mask"].tolist() == [1] and np.any(seen["long_interest"])
    assert (second.item_ids, second.placement, second.tier) == ([], "", ranked.tier)
    assert second.request["ranked_item_ids"] == ["garden-02", "garden-01"] and second.features


def test_a_locked_database_fails_no_request_and_the_drops_are_on_the_metrics_page(new_settings: NewSettings) -> None:
    settings = new_settings()
    store.apply(settings)
    metrics = f"127.0.0.1:{free_ports()}"
    with gateway(settings, max_queued_answers="2", metrics_address=metrics) as under_test:
        engine = open_database(settings.log_url)

        def dropped_there() -> float:
            with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=5) as page:
                lines = page.read().decode().splitlines()
            return sum(float(line.split()[-1]) for line in lines if line.startswith("braid_answers_dropped_total"))

        with locked(engine):
            eventually(
                lambda: under_test.client.recommend("anna").tier == rec.TIER_POPULAR and dropped_there() >= 3,
                what="answers that do not wait for their record",
            )
        log = under_test.log
        engine.dispose()
    assert log.count("not recorded until") == 1


def test_a_metrics_address_that_is_taken_is_one_line(empty_shop: RunningGateway, new_settings: NewSettings) -> None:
    settings = new_settings()
    variables = environment(settings, BRAID_GATEWAY_METRICS_ADDRESS=empty_shop.settings.gateway_address)
    done = subprocess.run(
        [sys.executable, "-m", "server"], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "BRAID_GATEWAY_METRICS_ADDRESS" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


@pytest.fixture
def settings_engine(new_settings: NewSettings) -> Iterator[Engine]:
    """An engine on the SQLite database of a shop."""
    engine = open_database(new_settings().log_url)
    yield engine
    engine.dispose()
