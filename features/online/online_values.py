"""Reads single features of many shoppers from the online store, past Feast's own reading, which goes view by view.

One SQL statement on SQLite, one pipeline on Redis, whatever the number of views. It gives the bytes of Feast's values
as they are stored: whoever reads knows their types.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from features.online.entity_keys import encoded, entity

# isort: split
from feast import FeatureStore, FeatureView
from feast.infra.online_stores.helpers import _mmh3, compute_table_id
from feast.infra.online_stores.redis import RedisOnlineStore


class WantedFeatures:
    """Single features of views of a project, and what the stores call them: worked out once for many reads."""

    def __init__(self, project: str, features: Sequence[tuple[FeatureView, str]]) -> None:
        self._project = project
        self.features = features

    @cached_property
    def columns(self) -> str:
        """Of a row of SQLite's answer, by the key in `column1`."""
        return ", ".join(
            f"""(SELECT value FROM "{compute_table_id(self._project, view, False)}"
            WHERE entity_key = column1 AND feature_name = '{name}')"""
            for view, name in self.features
        )

    @cached_property
    def fields(self) -> list[str | bytes]:
        """Of a hash in Redis."""
        return [_mmh3(f"{view.name}:{name}") for view, name in self.features]


def read_values(store: FeatureStore, wanted: WantedFeatures, shoppers: Sequence[str]) -> list[Sequence[bytes | None]]:
    """For each shopper the serialized value of each feature, None where there is none.

    Raises:
        sqlite3.Error, RedisError: the store does not answer.
    """
    online: Any = store._get_provider().online_store
    if isinstance(online, RedisOnlineStore):
        keys = [entity(shopper) for shopper in shoppers]
        hashes = online._generate_redis_keys_for_entities(store.config, keys)
        found: Any = online._read_hash_fields(store.config, [(key, wanted.fields) for key in hashes])
        return list(found)
    asked = [encoded(shopper) for shopper in shoppers]
    statement = f"SELECT {wanted.columns} FROM (VALUES {', '.join(['(?)'] * len(asked))})"
    # One row a shopper: sqlite3 lets go of the interpreter at each row, and gets it back when the others let it.
    rows: list[Sequence[bytes | None]] = online._get_conn(store.config).execute(statement, asked).fetchall()
    return rows
