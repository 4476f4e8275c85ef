"""Old releases go, and what is needed stays: what a hundred publishes leave on disk and in the online stores."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import redis
from sqlalchemy import insert

from features import store
from features.database.counters import advance_counter, read_counter
from features.database.engine import open_database
from features.database.models import Answer
from features.inputs.codes import CodeVocabularies
from features.inputs.content import ContentVocabulary
from features.inputs.probabilities import Probabilities
from features.online.materialize import materialized_counter
from features.online.rows import INTEREST_ROWS
from features.releases.housekeeping import remove_old_releases
from features.releases.release import ITEM_COLUMNS, Manifest, ReleaseError, file_sha256, read_release, write_vocabulary
from features.releases.release_table import ReleaseTable, Standing
from features.schema import CONTENT_TOKENS, offline_file
from features.settings import Settings
from tests.features.shops import write_generated
from tests.features.test_releases import manifest

DIM = 16
SHOPPERS = 20


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a release, of which each publish here takes a copy."""
    folder = tmp_path_factory.mktemp("exported")
    fusion, tower = folder / "fusion", folder / "item_tower"
    fusion.mkdir()
    tower.mkdir()
    for path in (fusion / "model.pt", fusion / "encoder.pt", fusion / "weights.pt", tower / "model.pt"):
        path.write_bytes(bytes(100_000))
    item = {"item_id": "i1", "title": "Lamp", "category_path": ["Home"], "brand": "A", "price": 1.0, "bias": 0.0}
    items = [item | {"popularity": 1.0, "content": [1] * CONTENT_TOKENS}]
    pl.DataFrame(items, schema=ITEM_COLUMNS).write_parquet(fusion / "items.parquet")
    np.save(fusion / "items.npy", np.zeros((1, DIM), np.float32))
    codes = CodeVocabularies(gender={}, country={}, device={})
    write_vocabulary(fusion / "vocabulary.json", ContentVocabulary(codes={"brand:a": 1}, price_edges=[]), codes)
    probabilities = Probabilities(outcomes={}, comes_back=None)
    (fusion / "probabilities.json").write_text(json.dumps(probabilities.to_json()))
    return folder


def write_version(settings: Settings, exported: Path, number: int) -> Manifest:
    """Copies the export into the repository, as release `number`."""
    for model in ("fusion", "item_tower"):
        shutil.copytree(exported / model, settings.model_repository / model / str(number))
    folder = settings.model_repository / "fusion" / str(number)
    files = {path.name: file_sha256(path) for path in folder.iterdir()}
    of_release = replace(manifest(number), interest_dim=DIM, item_count=1, files=files)
    (folder / "release.json").write_text(json.dumps(of_release.to_json()))
    return of_release


def publish_copies(settings: Settings, exported: Path, numbers: Sequence[int]) -> None:
    """Everything that `training.publish` leaves behind, of the one export, for releases that went live in turn."""
    for number in numbers:
        write_generated(settings, number, DIM)
    store.apply(settings)
    row: dict[str, object] = {"vector": [0.5] * DIM, "encoded_through_ms": 1, "encoded_position": 1}
    now = datetime.now(timezone.utc)
    rows = pl.DataFrame([row | {"shopper": f"u:{at}", "event_timestamp": now} for at in range(SHOPPERS)])
    rows = rows.select(*INTEREST_ROWS).cast(dict(INTEREST_ROWS))  # type: ignore[arg-type]
    engine = open_database(settings.log_url)
    table = ReleaseTable(engine)
    with store.opened(settings) as feast:
        for number in numbers:
            of_release = write_version(settings, exported, number)
            offline = offline_file(settings.offline, of_release.feature_view)
            offline.mkdir()
            rows.write_parquet(offline / "part.parquet")
            store.write_interest(feast, number, rows)
            advance_counter(engine, materialized_counter(number), number)
            table.record(number, of_release, "test", "copied")
            table.change_state(number, "live", "test", "copied")
    engine.dispose()


def clean(settings: Settings, grace_s: float = 0.0) -> list[int]:
    return remove_old_releases(settings, note=lambda _: None, grace_s=grace_s)


def versions(settings: Settings) -> set[int]:
    found = [path for path in settings.model_repository.glob("*/*") if path.is_dir()]
    assert {path.parent.name for path in found} == {"fusion", "item_tower"}
    return {int(path.name) for path in found}


def online_tables(settings: Settings) -> set[str]:
    connection = sqlite3.connect(settings.home / "online.db")
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%user_interest%'")
    found = {name for (name,) in names}
    connection.close()
    return found


def test_a_hundred_publishes_leave_as_much_as_twenty_and_a_rollback_still_works(
    settings: Settings, exported: Path
) -> None:
    sizes: dict[int, int] = {}
    counts: dict[int, int] = {}
    for through in range(20, 101, 20):
        publish_copies(settings, exported, range(through - 19, through + 1))
        clean(settings)
        found = [path.stat().st_size for path in settings.home.rglob("*") if path.is_file()]
        sizes[through], counts[through] = sum(found), len(found)
    assert versions(settings) == {99, 100}
    assert {path.name for path in settings.generated.iterdir()} == {"v99.json", "v100.json"}
    assert online_tables(settings) == {"braid_user_interest_v99", "braid_user_interest_v100"}
    assert len(list(settings.offline.glob("user_interest_*"))) == 2
    assert counts[100] == counts[20]
    assert sizes[100] < sizes[20] + 500_000, "one release is as large; the release table alone grows"
    engine = open_database(settings.log_url)
    assert [bool(read_counter(engine, materialized_counter(number))) for number in (98, 99, 100)] == [False, True, True]
    table = ReleaseTable(engine)
    assert table.rollback("test", "worse") == (99, 100)
    assert read_release(settings.model_repository / "fusion" / "99").manifest.release == 99
    assert table.standing() == Standing(live=99, previous=None)
    with pytest.raises(ReleaseError, match="no release was live before 99"):
        table.rollback("test", "worse still")
    with pytest.raises(ReleaseError, match="release 98 was removed, its files are gone"):
        table.change_state(98, "live", "test", "promoted")


def test_old_vectors_leave_redis_and_those_that_are_kept_stay(
    new_settings: Callable[..., Settings], redis_url: str, exported: Path
) -> None:
    settings = new_settings(online_store="redis", redis_url=redis_url)
    host, port = redis_url.split(":")
    with redis.Redis(host=host, port=int(port)) as client:
        client.flushdb()
        fields = []
        for number in range(1, 5):
            publish_copies(settings, exported, [number])
            clean(settings)
            row = next(client.scan_iter())
            fields.append(client.hlen(row))
    assert fields == [fields[0], *[2 * fields[0]] * 3]
    assert client.dbsize() == SHOPPERS


def test_what_is_in_use_stays(settings: Settings, exported: Path) -> None:
    publish_copies(settings, exported, range(1, 6))
    table = ReleaseTable(open_database(settings.log_url))
    for number in (6, 7):
        table.record(number, write_version(settings, exported, number), "test", "a candidate")
    table.change_state(6, "failed", "test", "a gate refused it")
    assert clean(settings, grace_s=600) == []
    answered = {
        "attribution_token": "t",
        "answered_time_ms": int(time.time() * 1000) + 60_000,
        "shopper": "u:1",
        "placement": "home",
        "release": 2,
        "tier": 1,
        "item_ids": [],
        "request": {},
    }
    with open_database(settings.log_url).begin() as connection:
        connection.execute(insert(Answer), [answered])
    assert clean(settings) == [1, 3, 6]
    assert versions(settings) == {2, 4, 5, 7}


def test_a_removal_that_was_cut_short_is_finished(settings: Settings, exported: Path) -> None:
    publish_copies(settings, exported, (1, 2, 3))
    since_ms = int(time.time() * 1000) + 1
    assert ReleaseTable(open_database(settings.log_url)).remove_unused(since_ms, "test", "cut short") == [1]
    assert versions(settings) == {1, 2, 3}
    assert clean(settings) == []
    assert versions(settings) == {2, 3}


def test_a_version_of_another_shop_stays(settings: Settings, exported: Path) -> None:
    publish_copies(settings, exported, (1, 2, 3))
    other = settings.model_repository / "fusion" / "1" / "release.json"
    other.write_text(json.dumps(json.loads(other.read_text()) | {"created_time": "2020-01-01T00:00:00+00:00"}))
    assert clean(settings) == [1]
    assert versions(settings) == {1, 2, 3}
