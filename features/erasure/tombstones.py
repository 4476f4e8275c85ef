"""Who was erased, as keyed hashes (table `tombstones`): nothing of them is stored again.

The key is `BRAID_ERASURE_KEY`, or else a file in the shop's home that the first erasure makes. Whoever has the tables
alone cannot try ids against the hashes. The counter `KEY_CHECK` holds a check value of the key, so that a process
with another key says so instead of knowing nobody.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, Engine, func, select, text

from features.database.engine import DatabaseError, insert_into
from features.database.models import Counter, Tombstone
from features.private_file import write_private
from features.settings import Settings

KEY_FILE: Final = "erasure.key"
KEY_CHECK: Final = "erasure:key"
HOLD_LOCK: Final = 6216427
"""Key of the PostgreSQL advisory lock that writers share and a new tombstone takes alone."""

# One parameter, however many hashes: a list of placeholders costs ten times as much on every batch of events.
_AMONG_SQLITE = text("SELECT shopper_hash FROM json_each(:hashes) JOIN tombstones ON shopper_hash = value")
_AMONG_POSTGRESQL = text("SELECT shopper_hash FROM tombstones WHERE shopper_hash = ANY(CAST(:hashes AS varchar[]))")


class ErasureKeyError(DatabaseError):
    """The key is not the one under which persons were erased; the message says what to do."""


class Tombstones:
    """The table `tombstones`; one object a process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._key = b""

    def check(self, engine: Engine) -> None:
        """Finds out at start-up whether this process can tell who was erased.

        Raises:
            ErasureKeyError: persons were erased under another key.
        """
        with engine.connect() as connection:
            if any_erased(connection):
                self._load(connection)

    def refused(self, connection: Connection, keys: Iterable[str]) -> set[str]:
        """Those of the shoppers' keys who were erased; until the transaction ends, nobody else is.

        For whoever is about to store something of these shoppers in the same transaction.

        Raises:
            ErasureKeyError: persons were erased under another key.
        """
        hold(connection)
        return self.erased(connection, keys)

    def erased(self, connection: Connection, keys: Iterable[str]) -> set[str]:
        """Those of the shoppers' keys who were erased by now.

        Raises:
            ErasureKeyError: persons were erased under another key.
        """
        if not any_erased(connection):
            return set()
        self._load(connection)
        by_hash = {self.hash_of(key): key for key in set(keys)}
        on_sqlite = connection.dialect.name == "sqlite"
        hashes = json.dumps(list(by_hash)) if on_sqlite else list(by_hash)
        found = connection.scalars(_AMONG_SQLITE if on_sqlite else _AMONG_POSTGRESQL, {"hashes": hashes})
        return {by_hash[shopper_hash] for shopper_hash in found}

    def bury(self, connection: Connection, keys: Iterable[str]) -> None:
        """Adds the shoppers' keys; waits for the transactions of those who hold, and lets none begin until it ends.

        Raises:
            ErasureKeyError: persons were erased under another key.
        """
        hold(connection, alone=True)
        self._load(connection, first=not any_erased(connection))
        now_ms = time.time_ns() // 1_000_000
        rows = [{"shopper_hash": self.hash_of(key), "erased_time_ms": now_ms} for key in keys]
        connection.execute(insert_into(connection, Tombstone).on_conflict_do_nothing(), rows)

    def hash_of(self, key: str) -> str:
        """The hash under which a shopper's key is erased, once the key was loaded."""
        assert self._key, "the key is loaded with the first tombstone that is read or written"
        return hmac.digest(self._key, key.encode(), "sha256").hex()

    def _load(self, connection: Connection, *, first: bool = False) -> None:
        """`load_with` what the database has; the first erasure makes key and check value."""
        if self._key:
            return
        key = self._read_key(make=first)
        if first:
            known = insert_into(connection, Counter).values(name=KEY_CHECK, value=_check_value(key))
            connection.execute(known.on_conflict_do_nothing(index_elements=["name"]))
        self.load_with(connection.scalar(select(Counter.value).where(Counter.name == KEY_CHECK)))

    def load_with(self, check_value: int | None) -> None:
        """Reads the key and compares it with the value of the counter `KEY_CHECK`.

        Raises:
            ErasureKeyError: it is another key.
        """
        if self._key:
            return
        key = self._read_key()
        if not key or _check_value(key) != check_value:
            raise ErasureKeyError(
                "persons were erased from this shop under another key: set BRAID_ERASURE_KEY to that key, or bring "
                f"back {self._settings.home / KEY_FILE} from the machine on which they were erased"
            )
        self._key = key

    def _read_key(self, *, make: bool = False) -> bytes:
        """The key of the settings or of the file in home; empty if there is neither."""
        if given := self._settings.erasure_key.get_secret_value():
            return given.encode()
        path = self._settings.home / KEY_FILE
        if make and not path.exists():
            write_private(path, secrets.token_hex(32))
        return path.read_text().strip().encode() if path.exists() else b""


def _check_value(key: bytes) -> int:
    return int.from_bytes(hmac.digest(key, b"braid erasure key", "sha256")[:7], "big")


def named_keys(shopper: str, session_id: str | None) -> set[str]:
    """The keys that a row names: its shopper's, and that of the session beside a person, where there is one."""
    return {shopper, f"s:{session_id}"} if session_id else {shopper}


def hold(connection: Connection, *, alone: bool = False) -> None:
    """Nobody is erased until this transaction ends; `alone`, nobody else holds either.

    On SQLite, the transaction is the database's one writer from here on.
    """
    if connection.dialect.name == "postgresql":
        lock = func.pg_advisory_xact_lock if alone else func.pg_advisory_xact_lock_shared
        connection.execute(select(lock(HOLD_LOCK)))
    elif not connection.connection.dbapi_connection.in_transaction:  # type: ignore[union-attr]
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # Python would begin with the first change, after the look


def erased_by(tombstones: Tombstones | None, connection: Connection, keys: Iterable[str]) -> set[str]:
    """`Tombstones.erased`, for writers that hold and to which no tombstones may have been given.

    Raises:
        DatabaseError: none was given, and persons were erased.
    """
    if tombstones is not None:
        return tombstones.erased(connection, keys)
    if any_erased(connection):
        raise DatabaseError("persons were erased from this shop; a writer must be given its Tombstones to tell who")
    return set()


def any_erased(connection: Connection) -> bool:
    """Whether anybody was ever erased."""
    return connection.scalar(select(Tombstone.shopper_hash).limit(1)) is not None


def count(engine: Engine) -> int:
    """How many keys were erased; grows with every erasure of somebody new."""
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(Tombstone)) or 0
