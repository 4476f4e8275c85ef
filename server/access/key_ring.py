"""The API keys in memory: followed in the database, so that no call waits for it."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass

from sqlalchemy import Engine

from server.access.key_table import KeyTable, StoredKey, hash_of
from server.access.scopes import Scope, needed
from server.access.token_bucket import TokenBucket
from server.errors import Overloaded, PermissionDenied, Unauthenticated
from server.following import Counters, FollowedTable

HEADER = "authorization"
SCHEME = "bearer "
_HOW = f"send the metadata `{HEADER}: Bearer <key>`; `python -m server keys create` makes one"


@dataclass(frozen=True, slots=True)
class Caller:
    """A key in force. `bucket` is None where its rate is not limited."""

    key_id: str
    secret_hash: str
    scopes: frozenset[Scope]
    bucket: TokenBucket | None

    def check_scope(self, method: str) -> None:
        """Compares the scopes with what `/package.Service/Method` needs.

        Raises:
            PermissionDenied: none of them will do.
        """
        scope = needed(method)
        if scope is not None and scope not in self.scopes and Scope.ADMIN not in self.scopes:
            held = ", ".join(sorted(held.value for held in self.scopes)) or "none that this version knows"
            raise PermissionDenied(f"{method} needs the scope {scope.value}; key {self.key_id} has {held}")

    def wait_s(self) -> float:
        """Counts a call or a message, and returns 0; or counts nothing, and returns when to come back."""
        return 0.0 if self.bucket is None else self.bucket.take()

    def check_rate(self) -> None:
        """Counts a call.

        Raises:
            Overloaded: it is one too many.
        """
        if (wait_s := self.wait_s()) > 0 and self.bucket is not None:
            raise Overloaded(
                f"key {self.key_id} may call {self.bucket.rate:g} times a second; send again later",
                retry_after_s=wait_s,
            )


class KeyRing(FollowedTable[list[StoredKey]]):
    """Who calls, by the secret that comes with the call."""

    def __init__(self, engine: Engine, counters: Counters, threads: Executor, *, open_without_keys: bool) -> None:
        super().__init__(KeyTable(engine), counters, threads, name="the API keys")
        self.any_key = False
        self._open_without_keys = open_without_keys
        self._callers: dict[str, Caller] = {}

    @property
    def open(self) -> bool:
        """Whether everybody may call everything: no key was ever made, and that is good enough here."""
        return self._open_without_keys and not self.any_key

    def caller(self, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        """Whose secret a call brings.

        The secret is looked up by its hash: how long that takes tells nothing about the secrets that are stored.

        Raises:
            Unauthenticated: it brings none, or one that is not in force.
        """
        for key, value in metadata:
            if key == HEADER and isinstance(value, str) and value[: len(SCHEME)].lower() == SCHEME:
                found = self._callers.get(hash_of(value[len(SCHEME) :].strip()))
                if found is None:
                    raise Unauthenticated(f"the key is not known, or was revoked; {_HOW}")
                return found
        raise Unauthenticated(f"the call brings no key; {_HOW}")

    def in_force(self, caller: Caller) -> bool:
        """Whether a key that was taken before still counts."""
        return caller.secret_hash in self._callers

    def take(self, rows: list[StoredKey]) -> None:
        """The keys."""
        self.any_key = bool(rows)
        self._callers = {key.secret_hash: self._taken(key) for key in rows if key.revoked_time_ms is None}

    def _taken(self, key: StoredKey) -> Caller:
        """The caller of a key; one that is known keeps what its bucket holds."""
        if (known := self._callers.get(key.secret_hash)) is not None:
            return known
        bucket = TokenBucket(key.calls_per_s, key.burst) if key.calls_per_s else None
        return Caller(key.key_id, key.secret_hash, key.scopes, bucket)
