"""Answers of a real gateway, made again from the offline files: no skew, and each planted one is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import numpy as np
import polars as pl
import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner

from braid.v1 import event_pb2
from braid.v1 import recommendation_pb2 as rec
from features.__main__ import app
from features.answers.replay import IN_FLIGHT_MS
from features.answers.skew import SkewError, skew
from features.database.engine import open_database
from features.database.models import Answer
from features.offline.build import build
from features.offline.point_in_time import READ_TIME
from features.settings import Settings
from tests.conditions import eventually
from tests.features.shops import now_ms
from tests.server.client import Client, RunningGateway, new_event

VIEW, PURCHASE = event_pb2.EVENT_TYPE_VIEW, event_pb2.EVENT_TYPE_PURCHASE
EVERYTHING, SOME = 10_000, 500
"""Answers compared; other tests' are among them, and a fault in all shows in some."""
TOLERANCE = 1e-4


def serve(client: Client) -> list[str]:
    """Answers to many kinds of shopper, some of whom act between two requests; their tokens."""
    tokens = []
    for number in range(12):
        home, session_id = rec.Context(device="mobile", country="GB"), uuid4().hex
        tokens.append(client.recommend(f"user-{number}", context=home).attribution_token)
        own = [new_event(VIEW, f"music-{step:02}", user_id=f"user-{number}") for step in range(3)]
        own.append(new_event(PURCHASE, f"garden-{number:02}", user_id=f"user-{number}", order_id=uuid4().hex))
        own.append(new_event(VIEW, "kitchen-03", session_id=session_id))
        client.write(*own)
        with_both = {"user_id": f"user-{number}", "session_id": session_id}
        tokens.append(client.recommend(**with_both).attribution_token)  # the events are on their way
        tokens.append(client.recommend(**with_both, recent_events=own[:4]).attribution_token)
        page = rec.Context(page_item_id="music-07")
        tokens.append(client.recommend(session_id=session_id, context=page, explain=True).attribution_token)
        ranking = rec.RankRequest(**with_both, item_ids=["garden-01", "music-01"])
        tokens.append(client.recommendations.Rank(ranking).attribution_token)
    return tokens


@pytest.fixture(scope="module")
def served(released_shop: RunningGateway, client: Client) -> Settings:
    """The shop after it has served, with the offline files of that moment."""
    settings = released_shop.settings
    tokens = serve(client)
    engine = open_database(settings.log_url)
    statement = select(func.count()).where(Answer.attribution_token.in_(tokens))

    def recorded() -> bool:
        with engine.connect() as connection:
            return connection.scalar(statement) == len(tokens)

    eventually(recorded, what="the record of every answer")
    newest_ms = select(func.max(Answer.answered_time_ms))
    with engine.connect() as connection:
        last_ms = connection.scalar(newest_ms) or 0
    engine.dispose()
    eventually(lambda: now_ms() > last_ms + IN_FLIGHT_MS, what="the time when nothing is on its way any more")
    build(settings)
    return settings


@pytest.fixture
def copied(served: Settings, tmp_path: Path) -> Settings:
    """The same database with offline files that a test may spoil."""
    shutil.copytree(served.offline, tmp_path / "offline")
    return served.model_copy(update={"home": tmp_path, "database_url": served.log_url})


def rewrite(path: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Changes a Parquet file and nothing that says so."""
    times, metadata = path.stat(), pl.read_parquet_metadata(path)
    kept = {READ_TIME: metadata[READ_TIME]} if READ_TIME in metadata else {}
    change(pl.read_parquet(path)).write_parquet(path, metadata=kept)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def skewed(settings: Settings) -> dict[str, float]:
    """Name to largest difference of what differs."""
    return {feature.name: feature.largest for feature in skew(settings, SOME, TOLERANCE).skewed}


def test_what_was_served_is_what_the_offline_files_say(served: Settings) -> None:
    report = skew(served, EVERYTHING, TOLERANCE)
    assert report.answers >= 60 and not report.left_out
    assert report.skewed == []
    compared = {feature.name: feature.answers for feature in report.features}
    assert set(compared) >= {"long_interest", "recent_items", "recent_ages", "own_items", "own_features", "context"}
    assert max(compared.values()) == report.answers


def test_a_changed_vector_is_named(copied: Settings) -> None:
    for path in (copied.offline / "user_interest_v1").glob("*.parquet"):
        rewrite(path, lambda rows: rows.with_columns(pl.col("vector").list.eval(pl.element() + 0.5)))
    found = skewed(copied)
    assert set(found) == {"long_interest"}
    assert found["long_interest"] == pytest.approx(0.5, rel=0.2)


def test_events_of_another_type_are_named(copied: Settings) -> None:
    spoilt = pl.when(pl.col("event_type") == VIEW).then(2).otherwise(pl.col("event_type")).cast(pl.Int32)
    rewrite(copied.offline / "events.parquet", lambda events: events.with_columns(event_type=spoilt))
    assert set(skewed(copied)) == {"recent_types"}


def test_another_transform_is_named(served: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from features.inputs import fusion_inputs

    right = fusion_inputs.own_item_features
    monkeypatch.setattr(fusion_inputs, "own_item_features", lambda *columns: right(*columns) * np.float32(1.01))
    assert set(skewed(served)) == {"own_features"}


def test_the_command_says_no_skew_or_fails_with_a_table(
    served: Settings, copied: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(settings: Settings) -> tuple[int, str]:
        for name, value in settings.model_dump().items():
            monkeypatch.setenv(f"BRAID_{name.upper()}", str(value))
        result = CliRunner().invoke(app, ["skew", "--sample", "50"], env={"COLUMNS": "160"})
        return result.exit_code, result.output

    code, output = run(served)
    assert code == 0 and "no skew in 50 answers" in output, output
    users = copied.offline / "users.parquet"
    rewrite(users, lambda rows: rows.with_columns(country=pl.lit("XX"), age=pl.lit(70, pl.Int32)))
    code, output = run(copied)
    assert code == 1 and "shopper" in output and "1-" in output, output


def test_nothing_to_compare_is_no_success(copied: Settings) -> None:
    shutil.rmtree(copied.model_repository / "gone", ignore_errors=True)
    empty = copied.model_copy(update={"model_repository": copied.home / "gone"})
    with pytest.raises(SkewError, match="release 1 is not in the model repository"):
        skew(empty, EVERYTHING, TOLERANCE)
    (copied.offline / "events.parquet").unlink()
    with pytest.raises(SkewError, match="features build"):
        skew(copied, EVERYTHING, TOLERANCE)
