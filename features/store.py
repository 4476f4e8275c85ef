"""The one module of `features` that knows Feast: opens the store, applies the definitions, writes online rows.

Rows are polars frames with the entity's key, the view's features and `event_timestamp` (aware, UTC); writing one
replaces the whole row. Redis runs with `skip_dedup`: a late event changes a row without making it newer, and Feast
would drop the rewrite. What keeps an old row from replacing a new one is the lock `online-rows`.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import features.lean_feast  # noqa: F401

# isort: split
import polars as pl
from feast import FeatureStore as FeatureStore
from feast import RepoConfig
from feast.infra.online_stores.helpers import compute_table_id
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.infra.registry.sql import SqlRegistry
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import FloatList, Int32List, Int64List, StringList, Value
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from features import definitions, schema
from features.database.engine import DatabaseError
from features.locks import locked
from features.online.entity_keys import encoded, entity
from features.online.rows import ROWS
from features.settings import Settings
from features.store_configuration import configuration, registry_file, write_configuration

PATIENCE_S = 10.0
"""Longest wait for an answer of Redis, for which a write takes milliseconds: what is silent hangs, or its host has
vanished and another may have its address. Who answers callers waits less."""
WRITE_ROWS = 250
"""Rows in one write: as long as it takes, SQLite makes another writer wait."""

_SCALARS: dict[Any, str] = {
    pl.String: "string_val",
    pl.Int32: "int32_val",
    pl.Int64: "int64_val",
    pl.Float64: "double_val",
}
_LISTS: dict[Any, tuple[str, Callable[..., Any]]] = {
    pl.String: ("string_list_val", StringList),
    pl.Int32: ("int32_list_val", Int32List),
    pl.Int64: ("int64_list_val", Int64List),
    pl.Float32: ("float_list_val", FloatList),
}


class StoreError(DatabaseError):
    """The feature store cannot be used; the message says what to do."""


def repo_config(settings: Settings) -> RepoConfig:
    """Feast's configuration of this shop."""
    return RepoConfig(**configuration(settings), repo_path=settings.home)


def open_store(settings: Settings) -> FeatureStore:
    """The store of an applied shop. The registry is read once; call `refresh_registry()` after a change of releases.

    Raises:
        StoreError: the online store cannot be reached, or its file is damaged.
    """
    _check_online_store(settings)
    store = open_registry(settings)
    if settings.online_store == "sqlite":
        online: Any = store._get_provider().online_store
        with _whole_file(f"{settings.home}/online.db"):
            connection = online._get_conn(store.config)
            connection.execute("PRAGMA schema_version")  # reads the file
            connection.execute("PRAGMA secure_delete=ON")
    give_up_soon(store, PATIENCE_S)
    return store


def open_registry(settings: Settings) -> FeatureStore:
    """A store to read the registry by, also where the online store is gone."""
    settings.home.mkdir(parents=True, exist_ok=True)
    store = FeatureStore(config=repo_config(settings))
    with locked(settings, "registry"):
        _ = store.registry  # Feast makes its tables now: who does at the same moment finds half of them there
    return store


def online_file(settings: Settings) -> int | None:
    """The inode of the online store's file, None where it has none (Redis).

    Who holds a file open goes on reading and writing it when another has taken its place: compare, and open again.

    Raises:
        StoreError: the file is not there.
    """
    if settings.online_store != "sqlite":
        return None
    path = f"{settings.home}/online.db"
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        raise StoreError(
            f"{path} is not there; put it back, or fill another: `python -m features build`, then `… materialize`"
        ) from None


@contextmanager
def opened(settings: Settings) -> Iterator[FeatureStore]:
    """`open_store`, closed at the end."""
    store = open_store(settings)
    try:
        yield store
    finally:
        close(store)


def close(store: FeatureStore) -> None:
    """Lets go of the connections to the registry and the online store."""
    registry = store.registry
    assert isinstance(registry, SqlRegistry)
    registry.write_engine.dispose()
    online = store._get_provider().online_store
    for connection in (getattr(online, "_conn", None), getattr(online, "_client", None)):
        if connection is not None:
            connection.close()


def apply(settings: Settings) -> None:
    """Registers the definitions, drops those of releases that are gone, and makes the online tables.

    Also writes `home/feature_store.yaml`, with which Feast's own commands see this shop:
    `feast --feature-store-yaml`.

    Raises:
        StoreError: a file in `generated` is no release, or the online store cannot be reached.
    """
    with locked(settings, "feature-store"):  # from here: a release that is declared meanwhile would be dropped
        try:
            declared = definitions.declare(settings)
        except ValueError as error:
            raise StoreError(str(error)) from None
        names = {part.name for part in declared}
        if settings.online_store == "sqlite":
            use_wal(settings.home / "online.db")
        if registry_file(settings) is not None:
            use_wal(settings.home / "registry.db")
        _make_empty_sources(settings.offline)
        write_configuration(settings)
        with opened(settings) as store:
            gone: list[Any] = [service for service in store.list_feature_services() if service.name not in names]
            for view in store.list_feature_views():
                if view.name not in names:
                    gone += [view, view.batch_source]
                    shutil.rmtree(schema.offline_file(settings.offline, view.name), ignore_errors=True)
            store.apply(declared, objects_to_delete=gone, partial=False)


def use_wal(path: Path) -> None:
    """Puts a SQLite file into WAL mode, which stays with the file: a reader no longer waits for the writer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=30)) as connection, _whole_file(path):
        connection.execute("PRAGMA journal_mode=WAL")


@contextmanager
def _whole_file(path: Path | str) -> Iterator[None]:
    """Says of a SQLite file that is damaged what to do."""
    try:
        yield
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise StoreError(
            f"{path} is damaged ({error}); move it away, then `python -m features build` and `… materialize`"
        ) from None


def write_recent(store: FeatureStore, rows: pl.DataFrame) -> None:
    """Rows of `schema.RECENT_VIEW`."""
    _write(store, schema.RECENT_VIEW, rows)


def write_purchases(store: FeatureStore, rows: pl.DataFrame) -> None:
    """Rows of `schema.PURCHASES_VIEW`."""
    _write(store, schema.PURCHASES_VIEW, rows)


def write_profiles(store: FeatureStore, rows: pl.DataFrame) -> None:
    """Rows of `schema.PROFILE_VIEW`."""
    _write(store, schema.PROFILE_VIEW, rows)


def write_interest(store: FeatureStore, release: int, rows: pl.DataFrame) -> None:
    """Rows of a release's view of long-term vectors."""
    _write(store, schema.interest_view(release), rows)


def count_interests(store: FeatureStore, release: int, shoppers: Sequence[str]) -> int:
    """How many of these shoppers have a long-term vector of a release online."""
    view = store.get_feature_view(schema.interest_view(release), allow_registry_cache=True)
    found = 0
    for start in range(0, len(shoppers), WRITE_ROWS):
        keys = [entity(name) for name in shoppers[start : start + WRITE_ROWS]]
        rows = store._get_provider().online_read(store.config, view, keys, ["vector"])
        found += sum(1 for _, values in rows if values and values["vector"].float_list_val.val)
    return found


def write_item_statistics(store: FeatureStore, rows: pl.DataFrame) -> None:
    """Rows of `schema.ITEM_STATISTICS_VIEW`."""
    _write(store, schema.ITEM_STATISTICS_VIEW, rows)


def delete_shoppers(store: FeatureStore, shoppers: Sequence[str]) -> None:
    """Deletes the rows of these shoppers from every view of every release; one without rows is passed over.

    Feast has no deletion of one entity: it goes by the store's own encoded key.
    """
    config = store.config
    online = store._get_provider().online_store
    keys = [encoded(name) for name in shoppers]
    try:
        for start in range(0, len(keys), WRITE_ROWS):
            part = keys[start : start + WRITE_ROWS]
            if isinstance(online, RedisOnlineStore):  # one hash holds all views of a shopper
                online._get_client(config.online_store).delete(*(key + config.project.encode() for key in part))
                continue
            with online._get_conn(config) as connection:  # type: ignore[attr-defined]
                for view in store.list_feature_views(allow_cache=True):
                    if view.join_keys == [schema.SHOPPER]:
                        marks = ",".join("?" * len(part))
                        table = compute_table_id(config.project, view, False)
                        connection.execute(f'DELETE FROM "{table}" WHERE entity_key IN ({marks})', part)
    except (RedisError, sqlite3.Error) as error:
        raise StoreError(f"cannot delete rows from the online store: {error}; it can be run again") from error


def _write(store: FeatureStore, view: str, rows: pl.DataFrame) -> None:
    # Not `write_to_online_store`: it leaves out a batch whose features are all null, such as a cleared profile. Nor by
    # way of pandas as Feast does, which takes ten times as long.
    definition = store.get_feature_view(view, allow_registry_cache=True)
    names = [feature.name for feature in definition.features]
    (join_key,) = definition.join_keys
    provider = store._get_provider()
    try:
        for part in rows.iter_slices(WRITE_ROWS):
            keys = [EntityKey(join_keys=[join_key], entity_values=[value]) for value in _values(part[join_key])]
            columns = [_values(part[name]) for name in names]
            moments = part["event_timestamp"].dt.replace_time_zone(None).to_list()
            data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]] = [
                (key, dict(zip(names, features, strict=True)), moment, None)
                for key, moment, *features in zip(keys, moments, *columns, strict=True)
            ]
            provider.online_write_batch(store.config, definition, data, None)
    except (RedisError, sqlite3.Error) as error:
        raise StoreError(f"cannot write {view} to the online store: {error}; it can be run again") from error


def redis_client(settings: Settings) -> Redis:
    """A client of the shop's Redis that gives up at once.

    Raises:
        LookupError, ValueError: BRAID_REDIS_URL cannot be read.
    """
    nodes, options = RedisOnlineStore._parse_connection_string(settings.redis_url)
    options |= {"retry": Retry(NoBackoff(), 0), "socket_connect_timeout": 2}
    return Redis(host=nodes[0]["host"], port=int(nodes[0]["port"]), **options)


def give_up_soon(store: FeatureStore, timeout_s: float) -> None:
    """Makes the client of Redis try once more and no longer than that; its own patience has no end."""
    online = store._get_provider().online_store
    if isinstance(online, RedisOnlineStore):
        client = online._get_client(store.config.online_store)
        client.set_retry(Retry(NoBackoff(), 1))
        if isinstance(client, Redis):
            client.connection_pool.connection_kwargs |= {
                "socket_timeout": timeout_s,
                "socket_connect_timeout": timeout_s,
            }


def _values(column: pl.Series) -> list[Value]:
    """Feast's values of a column, an empty one for null; those that its own conversion makes."""
    kind = column.dtype
    if isinstance(kind, pl.List):
        field, of_list = _LISTS[kind.inner]
        return [Value() if cell is None else Value(**{field: of_list(val=cell)}) for cell in column.to_list()]
    field = _SCALARS[kind]
    return [Value() if cell is None else Value(**{field: cell}) for cell in column.to_list()]


def _make_empty_sources(offline: Path) -> None:
    """Rows before the first build: none, in files that Feast can read."""
    offline.mkdir(parents=True, exist_ok=True)
    for view, columns in ROWS.items():
        path = schema.offline_file(offline, view)
        if not path.exists():
            pl.DataFrame(schema=columns).write_parquet(path)


def _check_online_store(settings: Settings) -> None:
    if settings.online_store != "redis":
        return
    address = settings.redis_url.partition(",")[0]  # behind it there may be a password
    try:
        with redis_client(settings) as client:
            client.ping()
    except TypeError as error:
        raise StoreError(
            f"BRAID_REDIS_URL={address},… has an option that the client of Redis does not take: {error}; correct it"
        ) from None
    except (RedisError, OSError, LookupError, ValueError) as error:
        raise StoreError(
            f"Redis at BRAID_REDIS_URL={address} does not answer: {error}; "
            "start it, or unset BRAID_ONLINE_STORE for SQLite"
        ) from None
