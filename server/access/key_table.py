"""API keys in the table `api_keys`: made, listed, revoked, and read by the gateways.

A secret is 256 random bits, so that its SHA-256 is as hard to turn back as the secret is to guess: a slow hash, as
passwords need, would add time to every call and nothing else. The secret is told once and stored nowhere.
A counter grows with every change, as for placement rules. A revoked key stays as a row: a shop that has made a key asks
for keys ever after.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine, insert, select, update

from features.database.counters import add_to_counter, changed_since
from features.database.models import ApiKey
from server.access.scopes import Scope

PREFIX: Final = "braid_"
"""Of every secret, so that scanners find one that was committed by mistake."""
_COUNTER: Final = "api_keys_revision"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A row. `calls_per_s` 0: no limit; `revoked_time_ms` None: in force."""

    key_id: str
    name: str
    secret_hash: str
    scopes: frozenset[Scope]
    calls_per_s: float
    burst: int
    created_time_ms: int
    revoked_time_ms: int | None


def hash_of(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


class KeyTable:
    """Reads and changes the table; each method is one transaction."""

    counter: Final = _COUNTER
    """Of its changes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, name: str, scopes: Iterable[Scope], *, calls_per_s: float, burst: int) -> tuple[str, str]:
        """Makes a key and returns its id and its secret, which nobody can read again."""
        key_id, secret = secrets.token_hex(4), PREFIX + secrets.token_urlsafe(32)
        with self._engine.begin() as connection:
            add_to_counter(connection, _COUNTER, 1)
            connection.execute(
                insert(ApiKey).values(
                    key_id=key_id,
                    name=name,
                    secret_hash=hash_of(secret),
                    scopes=sorted({scope.value for scope in scopes}),
                    calls_per_s=calls_per_s,
                    burst=burst,
                    created_time_ms=_now_ms(),
                )
            )
        return key_id, secret

    def revoke(self, key_id: str) -> bool:
        """Ends a key; False where none of this id is in force."""
        with self._engine.begin() as connection:
            add_to_counter(connection, _COUNTER, 1)
            in_force = update(ApiKey).where(ApiKey.key_id == key_id, ApiKey.revoked_time_ms.is_(None))
            return connection.execute(in_force.values(revoked_time_ms=_now_ms())).rowcount > 0

    def all(self) -> list[StoredKey]:
        """Every key, revoked ones too, the oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(ApiKey.__table__).order_by(ApiKey.created_time_ms, ApiKey.key_id)
            ).mappings()
            return [StoredKey(**{**row, "scopes": _known(row["scopes"])}) for row in rows]

    def changed_since(self, revision: int) -> tuple[list[StoredKey], int] | None:
        """All keys and their revision; None where that is `revision` still."""
        return changed_since(self._engine, _COUNTER, revision, self.all)


def _known(scopes: Iterable[str]) -> frozenset[Scope]:
    """The scopes that this version knows; a newer one, beside it while they change over, may have made keys of more."""
    return frozenset(scope for scope in Scope if scope.value in scopes)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
