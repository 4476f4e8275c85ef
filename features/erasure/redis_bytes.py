"""The bytes of deleted rows in what Redis keeps on disk: append-only file and snapshot are written anew."""

from __future__ import annotations

import time
from typing import Any, Final

from redis import Redis
from redis.exceptions import ResponseError

from features.database.engine import DatabaseError

WAIT_S: Final = 120.0
_RETRY_S = 0.05


def clean(client: Redis) -> None:
    """Writes the append-only file anew if there is one, then the snapshot if snapshots are configured.

    Raises:
        DatabaseError: Redis failed, or took longer than `WAIT_S`.
        redis.exceptions.RedisError: Redis does not answer.
    """
    if _persistence(client)["aof_enabled"]:
        _run(client, "BGREWRITEAOF", ("aof_rewrite_in_progress", "aof_rewrite_scheduled"), "aof_last_bgrewrite_status")
    if _takes_snapshots(client):
        _run(client, "BGSAVE", ("rdb_bgsave_in_progress",), "rdb_last_bgsave_status")


def _run(client: Redis, command: str, under_way: tuple[str, ...], status: str) -> None:
    """Starts a job that works on the state of now: one that runs already began with an older one."""
    _wait(client, under_way, command)
    client.execute_command(command)  # type: ignore[no-untyped-call]
    _wait(client, under_way, command)
    if (outcome := _persistence(client)[status]) != "ok":
        raise DatabaseError(f"Redis' {command} ended with {outcome!r}; its log says why")


def _wait(client: Redis, under_way: tuple[str, ...], command: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while any(_persistence(client)[name] for name in under_way):
        if time.monotonic() > deadline_s:
            raise DatabaseError(f"Redis' {command} took longer than {WAIT_S:.0f} s")
        time.sleep(_RETRY_S)


def _persistence(client: Redis) -> dict[str, Any]:
    return dict(client.info("persistence"))  # type: ignore[arg-type]


def _takes_snapshots(client: Redis) -> bool:
    try:
        return bool(dict(client.config_get("save")).get("save"))  # type: ignore[arg-type]
    except ResponseError:  # a provider's Redis: its snapshots are backups
        return False
