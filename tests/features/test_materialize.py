"""Long-term vectors by a real, tiny TorchScript encoder, run as the process that runs the real one."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import psycopg
import pytest
import torch
from sqlalchemy import Engine

from features import schema, store
from features.database.counters import read_counter
from features.log.event_log import EventLog, NewEvent
from features.online import materialize as job
from features.online.interest_encoder import InterestEncoder
from features.online.materialize import (
    MaterializeError,
    materialize,
    materialize_every,
    materialized_counter,
    write_histories,
)
from features.settings import Settings
from tests.conditions import eventually
from tests.features.shops import HOUR_MS, START_MS, fill, now_ms, online, random_events, sign_in, write_generated
from tests.features.test_releases import manifest

RELEASE = 5
SHOPPERS = [f"{'u' if number % 2 == 0 else 's'}:{number}" for number in range(7)]


class Counting(torch.nn.Module):
    """The vector of a history: its length, its last type, and a number of the release's own."""

    def __init__(self, release_mark: float, finite: bool) -> None:
        super().__init__()
        self.release_mark = release_mark if finite else float("nan")

    def forward(
        self, items: torch.Tensor, types: torch.Tensor, gaps: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        last = types.gather(1, (lengths - 1).unsqueeze(1)).squeeze(1).float()
        return torch.stack([lengths.float(), last, torch.full_like(last, self.release_mark)], dim=1)


def write_release(folder: Path, mark: float = 1.0, finite: bool = True) -> None:
    """What the encoder's process reads of a release."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.jit.script(Counting(mark, finite)).save(str(folder / schema.ENCODER_FILE))
    pl.DataFrame({"item_id": ["item-1", "item-2"]}).write_parquet(folder / schema.ITEMS_FILE)
    files = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (schema.ENCODER_FILE, schema.ITEMS_FILE)
    }
    of_release = replace(manifest(RELEASE), interest_dim=3, item_count=2, files=files)
    (folder / schema.MANIFEST_FILE).write_text(json.dumps(of_release.to_json()))


@pytest.fixture
def shop(settings: Settings) -> Settings:
    """A shop with a release in the model repository."""
    write_generated(settings, RELEASE, 3)
    store.apply(settings)
    write_release(settings.model_repository / schema.FUSION_MODEL / str(RELEASE))
    return settings


def vectors(settings: Settings) -> dict[str, dict[str, object] | None]:
    return online(settings, schema.interest_view(RELEASE), SHOPPERS)


def expected(engine: Engine, mark: float = 1.0) -> dict[str, dict[str, object] | None]:
    """What the encoder makes of every history in the log."""
    rows = EventLog(engine).recent_of(SHOPPERS, schema.HISTORY_EVENTS)
    found: dict[str, dict[str, object] | None] = dict.fromkeys(SHOPPERS)
    for (shopper,), events in rows.group_by("shopper", maintain_order=True):
        found[str(shopper)] = {
            "vector": [float(events.height), float(events["event_type"][-1]), mark],
            "encoded_through_ms": events["event_time_ms"].max(),
            "encoded_position": events["position"].max(),
        }
    return found


def view_of(shopper: str, event_id: str, time_ms: int = START_MS) -> NewEvent:
    user, session = (shopper[2:], None) if shopper.startswith("u:") else (None, shopper[2:])
    return NewEvent(
        event_id=event_id, event_type=1, event_time_ms=time_ms, user_id=user, session_id=session, item_id="item-1"
    )


def test_an_online_store_that_was_lost_gets_every_vector_again(shop: Settings) -> None:
    engine = fill(shop, random_events(150, seed=1))
    assert materialize(shop, RELEASE) == 7 and not job.vectors_lost(shop, engine, RELEASE, 150)
    for file in shop.home.glob("online.db*"):
        file.unlink()
    store.apply(shop)
    assert job.vectors_lost(shop, engine, RELEASE, 150)
    assert materialize(shop, RELEASE) == 7
    assert vectors(shop) == expected(engine)
    assert materialize(shop, RELEASE) == 0


def test_a_damaged_online_store_says_which_file_and_what_to_do(shop: Settings) -> None:
    for file in shop.home.glob("online.db*"):
        file.unlink()
    (shop.home / "online.db").write_bytes(b"nothing that SQLite knows" * 100)
    for use in (store.apply, store.open_store):
        with pytest.raises(store.StoreError, match=r"online\.db is damaged \(file is not a database\); move it away"):
            use(shop)


def test_users_and_sessions_get_vectors_and_then_only_those_with_new_events(shop: Settings) -> None:
    engine = fill(shop, random_events(150, seed=1))
    assert materialize(shop, RELEASE) == 7
    assert vectors(shop) == expected(engine)
    assert materialize(shop, RELEASE) == 0
    EventLog(engine).append([view_of("u:2", "new"), view_of("s:3", "late", START_MS - 10**10)], now_ms())
    assert materialize(shop, RELEASE) == 2
    assert vectors(shop) == expected(engine)
    assert read_counter(engine, materialized_counter(RELEASE)) == 152


def test_a_release_being_published_is_encoded_whole_even_if_its_number_was_used(shop: Settings, tmp_path: Path) -> None:
    engine = fill(shop, random_events(60, seed=2))
    materialize(shop, RELEASE)
    write_release(tmp_path / "candidate", mark=2.0)
    materialize(shop, RELEASE, tmp_path / "candidate")
    assert vectors(shop) == expected(engine, mark=2.0)


def interrupted_once(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The second chunk ends the run as Ctrl-C does; the shoppers of each chunk, as they come."""
    encode, calls = InterestEncoder.encode, list[list[str]]()

    def stopped(encoder: InterestEncoder, histories: Path, out: Path) -> None:
        calls.append(pl.read_parquet(histories)["shopper"].to_list())
        if len(calls) == 2:
            raise KeyboardInterrupt
        encode(encoder, histories, out)

    monkeypatch.setattr(InterestEncoder, "encode", stopped)
    return calls


def test_a_run_that_was_cut_short_goes_on_where_it_stopped(shop: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = fill(shop, random_events(150, seed=3))
    monkeypatch.setattr(job, "CHUNK_SHOPPERS", 3)
    calls = interrupted_once(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        materialize(shop, RELEASE)
    assert read_counter(engine, materialized_counter(RELEASE)) == 0
    EventLog(engine).append([view_of(calls[0][0], "while it was down")], now_ms())
    assert materialize(shop, RELEASE) == 4
    assert calls[2] == calls[1], "the chunk that failed is done again, the first one is not"
    assert materialize(shop, RELEASE) == 1, "the shopper with an event since the run began"
    assert vectors(shop) == expected(engine)


@pytest.fixture
def english_url(postgres_server: str) -> Iterator[str]:
    """URL of a database that sorts texts as a dictionary does: a1, B1, where their code points say B1, a1."""
    url = postgres_server.rsplit("/", 1)[0] + "/english"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE english TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'")
    yield url
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("DROP DATABASE english WITH (FORCE)")


def test_a_run_that_goes_on_leaves_nobody_out_whatever_the_order_of_the_database(
    new_settings: Callable[..., Settings], english_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = new_settings(database_url=english_url)
    engine = fill(settings, [view_of(shopper, shopper) for shopper in ("u:a1", "u:B1", "u:c1", "u:D1")])
    write_generated(settings, RELEASE, 3)
    store.apply(settings)
    write_release(settings.model_repository / schema.FUSION_MODEL / str(RELEASE))
    monkeypatch.setattr(job, "CHUNK_SHOPPERS", 1)
    calls = interrupted_once(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        materialize(settings, RELEASE)
    assert materialize(settings, RELEASE) == 3
    assert calls == [["u:B1"], ["u:D1"], ["u:D1"], ["u:a1"], ["u:c1"]]
    engine.dispose()


@pytest.mark.parametrize("torn", ["", '{"encoder": "a'])
def test_a_run_whose_file_was_torn_by_a_full_disk_begins_anew(shop: Settings, torn: str) -> None:
    engine = fill(shop, random_events(60, seed=3))
    work = job.work_folder(shop, RELEASE)
    work.mkdir(parents=True)
    (work / job.RUN_FILE).write_text(torn)
    materialize(shop, RELEASE)
    assert vectors(shop) == expected(engine)


def test_a_run_of_another_encoder_is_not_continued(shop: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = fill(shop, random_events(100, seed=4))
    monkeypatch.setattr(job, "CHUNK_SHOPPERS", 3)
    interrupted_once(monkeypatch)
    folder = shop.model_repository / schema.FUSION_MODEL / str(RELEASE)
    with pytest.raises(KeyboardInterrupt):
        materialize(shop, RELEASE, folder)
    write_release(folder, mark=3.0)
    assert materialize(shop, RELEASE, folder) == 7
    assert vectors(shop) == expected(engine, mark=3.0)


def test_point_in_time_vectors_lie_offline_for_feast(shop: Settings) -> None:
    fill(shop, random_events(100, seed=5))
    materialize(shop, RELEASE)
    parts = pl.read_parquet(shop.offline / schema.interest_view(RELEASE))
    asked = parts.select("shopper", "event_timestamp").to_pandas()
    with store.opened(shop) as feast:
        got = feast.get_historical_features(asked, [f"{schema.interest_view(RELEASE)}:encoded_position"]).to_df()
    assert dict(zip(got["shopper"], got["encoded_position"], strict=True)) == dict(
        zip(parts["shopper"], parts["encoded_position"], strict=True)
    )


def test_histories_are_the_newest_events_ascending(settings: Settings, tmp_path: Path) -> None:
    count = schema.HISTORY_EVENTS + 30
    engine = fill(settings, [view_of("u:0", f"event-{n}", START_MS - n) for n in range(count)])
    assert write_histories(EventLog(engine), ["u:0", "u:nobody"], tmp_path / "histories.parquet") == 1
    row = pl.read_parquet(tmp_path / "histories.parquet").row(0, named=True)
    assert row["event_times_ms"] == list(range(START_MS - schema.HISTORY_EVENTS + 1, START_MS + 1))
    assert len(row["item_ids"]) == len(row["event_types"]) == schema.HISTORY_EVENTS


def test_a_session_that_signed_in_loses_its_vector_to_the_person(shop: Settings) -> None:
    engine = fill(shop, random_events(150, seed=8))
    materialize(shop, RELEASE)
    before = vectors(shop)
    sign_in(engine, "1", "0", START_MS + 10**10)
    sign_in(engine, "3", "0", START_MS + 40 * HOUR_MS)  # some of its events were later, and stay
    assert materialize(shop, RELEASE) == 2
    assert vectors(shop) == expected(engine)
    assert before["s:1"] is not None and vectors(shop)["s:1"] is None
    assert vectors(shop)["s:3"] not in (None, before["s:3"])
    assert materialize(shop, RELEASE) == 0
    assert vectors(shop) == expected(engine)


def test_an_empty_log_is_no_error(shop: Settings) -> None:
    assert materialize(shop, RELEASE) == 0


def test_what_is_missing_or_wrong_is_said_in_one_line(shop: Settings, tmp_path: Path) -> None:
    fill(shop, random_events(20, seed=6))
    with pytest.raises(MaterializeError, match="no release is live; publish one first"):
        materialize(shop)
    with pytest.raises(MaterializeError, match=r"release 9 cannot be materialised: .*release\.json is missing"):
        materialize(shop, 9)
    write_release(tmp_path / "broken", finite=False)
    with pytest.raises(MaterializeError, match="vectors that are not finite"):
        materialize(shop, RELEASE, tmp_path / "broken")
    shutil.copytree(tmp_path / "broken", tmp_path / "torn")
    (tmp_path / "torn" / schema.ENCODER_FILE).write_bytes(b"not a module")
    changed = r"torn failed \(1\): .*encoder.pt is not the file that was published"
    with pytest.raises(MaterializeError, match=changed) as failure:
        materialize(shop, RELEASE, tmp_path / "torn")
    assert "\n" not in str(failure.value)


def test_vectors_on_redis_and_postgresql(
    new_settings: Callable[..., Settings], postgres_url: str, redis_url: str
) -> None:
    settings = new_settings(database_url=postgres_url, online_store="redis", redis_url=redis_url)
    engine = fill(settings, random_events(80, seed=7))
    write_generated(settings, RELEASE, 3)
    store.apply(settings)
    write_release(settings.model_repository / schema.FUSION_MODEL / str(RELEASE), mark=9.0)
    materialize(settings, RELEASE)
    assert vectors(settings) == expected(engine, mark=9.0)
    engine.dispose()


def test_a_run_every_while_takes_up_new_events_with_one_encoder_and_outlives_failures(
    shop: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    engine = fill(shop, random_events(100, seed=9))
    started: list[Path] = []
    start = InterestEncoder.__init__
    monkeypatch.setattr(InterestEncoder, "__init__", lambda self, files: (started.append(files), start(self, files))[1])
    folder = shop.model_repository / schema.FUSION_MODEL / str(RELEASE)
    (shop.home / "materialize").touch()  # where the job makes its folder
    stop = threading.Event()
    thread = threading.Thread(target=materialize_every, args=(shop, RELEASE, 0.05, stop))
    thread.start()
    try:
        eventually(lambda: "NotADirectoryError" in caplog.text, within_s=60, what="the disk's refusal")
        (shop.home / "materialize").unlink()
        eventually(lambda: vectors(shop) == expected(engine), within_s=60, what="the first run")
        EventLog(engine).append([view_of("u:0", "later")], now_ms())
        eventually(lambda: vectors(shop) == expected(engine), within_s=60, what="a run with the new event")
        (folder / schema.MANIFEST_FILE).rename(folder / "away")
        eventually(lambda: "MaterializeError" in caplog.text, within_s=60, what="the failure")
        (folder / "away").rename(folder / schema.MANIFEST_FILE)
        eventually(lambda: caplog.text.count("vectors are made again") == 2, within_s=60, what="the end of it")
    finally:
        stop.set()
        thread.join()
    assert started == [folder]
    assert caplog.text.count("vectors cannot be made") == 2
