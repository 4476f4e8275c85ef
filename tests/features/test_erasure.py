"""A person is erased everywhere, to the last byte, and nobody else is touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from sqlalchemy import Engine

from features import schema
from features.erasure import redis_bytes
from features.erasure.erase import ErasureIncomplete, erase
from features.settings import Settings
from tests.conftest import NewSettings
from tests.features.erasable import (
    IDS,
    OTHER_KEYS,
    PERSON,
    RELEASE,
    SESSION,
    THEIR_KEYS,
    durable_redis,
    files_that_name,
    online_rows,
    postgresql_folder,
    table_rows,
    write_shop,
)
from tests.processes import free_ports


@dataclass(frozen=True)
class Stores:
    """A shop and the folders of its live stores."""

    settings: Settings
    folders: list[Path]

    def name(self, *ids: str) -> set[str]:
        """Files of the live stores that name one of the ids."""
        if self.settings.database_url:
            postgresql_folder(self.settings.database_url)  # writes to disk what is in memory
        return {f"{folder.name}/{path}" for folder in self.folders for path in files_that_name(folder, *ids)}


@pytest.fixture(params=["sqlite", "postgresql and redis"])
def stores(request: pytest.FixtureRequest, new_settings: NewSettings, tmp_path: Path) -> Iterator[Stores]:
    """The embedded profile, and the one with servers."""
    with ExitStack() as servers:
        if request.param == "sqlite":
            settings = new_settings()
            yield Stores(settings, [settings.home])
            return
        url, port, folder = request.getfixturevalue("postgres_url"), free_ports(), tmp_path / "redis"
        folder.mkdir()
        servers.enter_context(durable_redis(folder, port))
        settings = new_settings(database_url=url, online_store="redis", redis_url=f"127.0.0.1:{port}")
        yield Stores(settings, [settings.home, folder, postgresql_folder(url)])


def others(settings: Settings, engine: Engine) -> dict[str, Any]:
    """Everything that is of others; of their events in the person's visit, the visit is the person's."""
    offline = {
        path.name: pl.read_parquet(path).filter(~pl.col("shopper").is_in(THEIR_KEYS))
        for path in settings.offline.rglob("*.parquet")
        if "shopper" in pl.read_parquet_schema(path)
    }
    return {
        "online": online_rows(settings, OTHER_KEYS),
        "offline": {
            name: (rows.drop("session_id") if "session_id" in rows.columns else rows).to_dicts()
            for name, rows in offline.items()
        },
        "events": [
            (*row[:3], *row[4:]) for row in table_rows(engine, "events", "position") if row[2] not in THEIR_KEYS
        ],
        "answers": [row for row in table_rows(engine, "answers", "attribution_token") if row[2] not in THEIR_KEYS],
        "users": [row for row in table_rows(engine, "users", "user_id") if row[0] != PERSON],
        "sign_ins": [row for row in table_rows(engine, "sign_ins", "session_id") if row[1] not in THEIR_KEYS],
        "items": table_rows(engine, "items", "item_id"),
    }


@pytest.mark.timeout(240)
def test_no_byte_of_the_person_is_left_and_nobody_else_is_touched(stores: Stores) -> None:
    settings = stores.settings
    engine = write_shop(settings)
    before = others(settings, engine)
    assert all(before["online"].values()) and stores.name(PERSON) and stores.name(SESSION)
    erase(settings, user_id=PERSON)
    assert stores.name(*IDS) == set()
    assert online_rows(settings, THEIR_KEYS) == dict.fromkeys(before["online"], {})
    assert others(settings, engine) == before
    assert len(table_rows(engine, "tombstones", "shopper_hash")) == 3
    rejected = pl.read_parquet(settings.home / "imports" / "one" / "rejected.parquet")
    assert rejected["row"].to_list() == [2]

    tombstones = table_rows(engine, "tombstones", "shopper_hash")
    erase(settings, user_id=PERSON)
    erase(settings, user_id="nobody-ever-heard-of")
    assert others(settings, engine) == before
    assert set(tombstones) < set(table_rows(engine, "tombstones", "shopper_hash"))
    engine.dispose()


def test_a_file_that_cannot_be_read_is_named_and_keeps_nothing_else_from_being_erased(settings: Settings) -> None:
    write_shop(settings).dispose()
    part = settings.offline / schema.interest_view(RELEASE) / "part-1.parquet"
    killed = part.with_name("part-2.unfinished")  # of a `materialize` that was killed
    killed.write_bytes(part.read_bytes())
    broken = settings.home / "imports" / "one" / "broken.parquet"
    broken.write_bytes(part.read_bytes()[:200])
    with pytest.raises(ErasureIncomplete, match=rf"offline files \({broken}: .*delete a file that is broken\)"):
        erase(settings, user_id=PERSON)
    assert not killed.exists()
    for path in (*settings.offline.glob("*.parquet"), part):
        rows = pl.read_parquet(path)
        assert "shopper" not in rows.columns or not rows["shopper"].is_in(THEIR_KEYS).any()
    broken.unlink()
    erase(settings, user_id=PERSON)
    assert files_that_name(settings.home, *IDS) == set()


def test_a_rejected_row_is_found_by_an_id_of_any_kind_of_column(settings: Settings) -> None:
    write_shop(settings).dispose()
    person, other = uuid4(), uuid4()
    name, nobody = str(person), str(other)
    columns = {
        "uuid": pa.array([person.bytes, other.bytes], pa.uuid()),
        "bytes": pa.array([b"\xff" + name.encode(), b"\xff"]),
        "list": [[nobody, name], [nobody]],
        "struct": [{"user": {"id": name}}, {"user": {"id": nobody}}],
        "map": pa.array([[("id", name)], []], pa.map_(pa.string(), pa.string())),
    }
    files = {}
    for kind, column in columns.items():
        files[kind] = settings.home / "imports" / kind / "rejected.parquet"
        files[kind].parent.mkdir()
        pq.write_table(pa.table({"row": [1, 2], "visitor": column}), files[kind])
    erase(settings, user_id=name)
    assert {kind: pq.read_table(file)["row"].to_pylist() for kind, file in files.items()} == dict.fromkeys(columns, [2])


def test_a_redis_that_tells_nobody_its_configuration_keeps_no_erasure_from_its_end(tmp_path: Path) -> None:
    port, folder = free_ports(), tmp_path / "redis"
    folder.mkdir()
    with durable_redis(folder, port), redis.Redis(port=port) as owner:
        owner.execute_command("ACL", "SETUSER", "shop", "on", ">secret", "~*", "+@all", "-config")
        with redis.Redis(port=port, username="shop", password="secret") as client:
            with pytest.raises(redis.ResponseError):
                client.config_get("save")
            redis_bytes.clean(client)
