"""Feast's configuration of a shop, and the file with which Feast's own commands see it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from features import definitions
from features.database.server_url import sqlalchemy_url
from features.private_file import write_private
from features.settings import Settings

ENTITY_KEY_VERSION = 3


def configuration(settings: Settings) -> dict[str, Any]:
    """What Feast is told of this shop: registry, stores and their addresses, with the passwords in them."""
    registry = registry_file(settings)
    online: dict[str, Any] = {"type": "sqlite", "path": str((settings.home / "online.db").absolute())}
    if settings.online_store == "redis":
        online = {"type": "redis", "connection_string": settings.redis_url, "skip_dedup": True}
    return {
        "project": definitions.project.name,
        "provider": "local",
        "registry": {
            "registry_type": "sql",
            "path": sqlalchemy_url(settings.log_url) if registry is None else f"sqlite:///{registry}",
            "cache_ttl_seconds": 0,
        },
        "online_store": online,
        "offline_store": {"type": "file"},
        "entity_key_serialization_version": ENTITY_KEY_VERSION,
    }


def write_configuration(settings: Settings) -> None:
    """Writes `home/feature_store.yaml` (in JSON, which YAML contains) as a whole, readable by its owner alone.

    Call it with the lock `feature-store`.
    """
    write_private(settings.home / "feature_store.yaml", json.dumps(configuration(settings), indent=2))


def registry_file(settings: Settings) -> Path | None:
    """The registry's SQLite file, or None where it lies in the shop's PostgreSQL."""
    if settings.log_url.startswith("postgresql"):
        return None
    return (settings.home / "registry.db").absolute()
