"""Which shoppers a stream worker serves: every shopper belongs to one of `SHARES` shares, each share to one worker.

On PostgreSQL any number of workers divide the shares: a share is held by an advisory lock of the worker's session, so
that those of a worker that dies are free at once, and the locks of all say how many workers there are. On SQLite one
worker serves all.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Final

from sqlalchemy import text

from features.locks import advisory_lock, locked, own_engine
from features.settings import Settings

SHARES: Final = 16
EVERY_SHARE: Final = frozenset(range(SHARES))

_CLASS: Final = 6_216_419
"""First half of the advisory locks' keys; the second is the share, or `SHARES`, which every worker shares."""

_HELD = text(
    "SELECT objid, count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = :class "
    "AND objsubid = 2 AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) GROUP BY objid"
)
_JOIN = text("SELECT pg_advisory_lock_shared(:class, :share)")
_TAKE = text("SELECT pg_try_advisory_lock(:class, :share)")
_GIVE_UP = text("SELECT pg_advisory_unlock(:class, :share)")


def share_of(shopper: str) -> int:
    """The share of a shopper's key; the same in every process and version."""
    return zlib.crc32(shopper.encode()) % SHARES


class SoleShares:
    """Every share, held by a file's lock.

    Raises:
        LockTaken: another worker of the shop has them.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = ExitStack()
        self._lock.enter_context(locked(settings, "stream", wait=False))
        self.owned = EVERY_SHARE

    def surplus(self) -> frozenset[int]:
        """None: nobody else wants them."""
        return frozenset()

    def give_up(self, shares: Collection[int]) -> None:
        """Never called with any."""
        assert not shares

    def take(self) -> None:
        """There are no more."""

    def writing(self) -> AbstractContextManager[None]:
        """Held while rows are read from the log and written: no build writes meanwhile."""
        return locked(self._settings, "online-rows", shared=True)

    def close(self) -> None:
        """Lets go of them."""
        self._lock.close()


class DividedShares:
    """The shares that this worker holds beside others; `surplus`, `give_up` and `take` keep it to its part."""

    def __init__(self, settings: Settings) -> None:
        self._engine = own_engine(settings.log_url)
        self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._connection.execute(_JOIN, {"class": _CLASS, "share": SHARES})
        self.owned: frozenset[int] = frozenset()

    def surplus(self) -> frozenset[int]:
        """What this worker holds above its part; make the places durable before giving it up."""
        return frozenset(sorted(self.owned)[self._part(self._held()) :])

    def give_up(self, shares: Collection[int]) -> None:
        """Lets other workers have these."""
        for share in shares:
            self._connection.execute(_GIVE_UP, {"class": _CLASS, "share": share})
        self.owned -= frozenset(shares)

    def take(self) -> None:
        """Takes free shares up to this worker's part."""
        held = self._held()
        for share in sorted(EVERY_SHARE - held.keys()):
            if len(self.owned) >= self._part(held):
                return
            if self._connection.execute(_TAKE, {"class": _CLASS, "share": share}).scalar_one():
                self.owned |= {share}

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Held while rows are read from the log and written: no build writes meanwhile.

        On the connection that holds the shares: whoever has lost them learns of it here.
        """
        with advisory_lock(self._connection, "online-rows", shared=True):
            yield

    def close(self) -> None:
        """Lets go of them."""
        self._connection.close()
        self._engine.dispose()

    def _held(self) -> dict[int, int]:
        """Workers by share held, and under `SHARES` all of them."""
        return {share: count for share, count in self._connection.execute(_HELD, {"class": _CLASS})}

    def _part(self, held: dict[int, int]) -> int:
        return -(-SHARES // held[SHARES])


def join(settings: Settings) -> SoleShares | DividedShares:
    """This worker's shares; none at first where workers divide them.

    Raises:
        LockTaken: the shop has one worker at a time, and another is it.
    """
    return DividedShares(settings) if settings.log_url.startswith("postgresql") else SoleShares(settings)
