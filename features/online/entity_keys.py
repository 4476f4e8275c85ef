"""How a shopper is named to Feast's online stores."""

from __future__ import annotations

import features.lean_feast  # noqa: F401

# isort: split
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from features.schema import SHOPPER
from features.store_configuration import ENTITY_KEY_VERSION


def entity(shopper: str) -> EntityKey:
    """A shopper's key as Feast's own methods take it."""
    return EntityKey(join_keys=[SHOPPER], entity_values=[Value(string_val=shopper)])


def encoded(shopper: str) -> bytes:
    """A shopper's key as the SQLite store has it; behind it, Redis' has the project."""
    return serialize_entity_key(entity(shopper), ENTITY_KEY_VERSION)
