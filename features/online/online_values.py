"""Reads single features of many shoppers from the online store, past Feast's own reading, which goes view by view.

One SQL statement on SQLite, one pipeline on Redis, whatever the number of views. It gives the bytes of Feast's values
as they are stored: whoever reads knows their types.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from features.store import ENTITY_KEY_VERSION, FeatureStore

# isort: split
from feast import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3, compute_table_id
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from features.schema import SHOPPER

Wanted = Sequence[tuple[FeatureView, str]]
"""Views and names of features."""


def read_values(store: FeatureStore, wanted: Wanted, shoppers: Sequence[str]) -> list[Sequence[bytes | None]]:
    """For each shopper the serialized value of each feature, None where there is none.

    Raises:
        sqlite3.Error, RedisError: the store does not answer.
    """
    online: Any = store._get_provider().online_store
    if isinstance(online, RedisOnlineStore):
        keys = [_entity(shopper) for shopper in shoppers]
        fields = [_mmh3(f"{view.name}:{name}") for view, name in wanted]
        hashes = online._generate_redis_keys_for_entities(store.config, keys)
        found: Any = online._read_hash_fields(store.config, [(key, fields) for key in hashes])
        return list(found)
    encoded = [entity_key(shopper) for shopper in shoppers]
    statement = _statement(store.config.project, wanted, len(encoded))
    # One row a shopper: sqlite3 lets go of the interpreter at each row, and gets it back when the others let it.
    rows: list[Sequence[bytes | None]] = online._get_conn(store.config).execute(statement, encoded).fetchall()
    return rows


def entity_key(shopper: str) -> bytes:
    """A shopper's key as the SQLite store has it."""
    return serialize_entity_key(_entity(shopper), ENTITY_KEY_VERSION)


def _statement(project: str, wanted: Wanted, shoppers: int) -> str:
    columns = ", ".join(
        f"""(SELECT value FROM "{compute_table_id(project, view, False)}"
        WHERE entity_key = column1 AND feature_name = '{name}')"""
        for view, name in wanted
    )
    return f"SELECT {columns} FROM (VALUES {', '.join(['(?)'] * shoppers)})"


def _entity(shopper: str) -> EntityKey:
    return EntityKey(join_keys=[SHOPPER], entity_values=[Value(string_val=shopper)])
