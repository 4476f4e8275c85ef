"""What is done to a part, and how it is made good again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil
import psycopg
import redis

from benchmarks.chaos.shop import Shop
from tests.parts import Part, held

LASTS_S = 2.0
BRIEFLY_S = 0.4
"""A gateway that hangs for longer than its callers wait takes its calls with it; so long, none."""
DELAY_S = 0.05
"""While a part is delayed it is held for so long, again and again, with as long between."""
DROPS = 5


@dataclass(frozen=True, slots=True)
class Fault:
    """A name for the table, and the fault itself: it is there while the context is open."""

    name: str
    lasts_s: float
    hold: Callable[[Shop], Iterator[None]]


def faults() -> list[Fault]:
    """Every kind on every part that it makes sense for."""
    below = ("triton", "stream", "redis", "postgresql")
    found = [Fault(f"kill {name}", LASTS_S, _on(name, _killed)) for name in (*below, "gateway-1", "gateway-2")]
    found += [Fault(f"stop {name}", LASTS_S, _on(name, _stopped)) for name in below]
    found += [Fault(f"stop {name}", BRIEFLY_S, _on(name, _stopped)) for name in ("gateway-1", "gateway-2")]
    found += [Fault(f"delay {name}", LASTS_S, _on(name, _delayed)) for name in ("triton", "redis", "postgresql")]
    found += [Fault(f"full disk under {name}", LASTS_S, _on(name, _full_disk)) for name in ("redis", "postgresql")]
    return [
        *found,
        Fault("kill stubs", LASTS_S, _stubs_killed),
        Fault("stop stubs", LASTS_S, _stubs_stopped),
        Fault("drop redis' connections", LASTS_S, _redis_drops),
        Fault("drop postgresql's connections", LASTS_S, _postgresql_drops),
    ]


def _on(name: str, act: Callable[[Part], Iterator[None]]) -> Callable[[Shop], Iterator[None]]:
    return lambda shop: act(shop.parts[name])


def _killed(part: Part) -> Iterator[None]:
    part.kill()
    yield
    part.revive()


def _stopped(part: Part) -> Iterator[None]:
    with held(part.family()):
        yield


def _delayed(part: Part) -> Iterator[None]:
    with part.slowed(DELAY_S, DELAY_S):
        yield


def _full_disk(part: Part) -> Iterator[None]:
    """No file of the part may grow: a write fails as on a full disk, with EFBIG for ENOSPC."""
    _limit_files(part, "1")
    yield
    _limit_files(part, "unlimited")


def _stubs_killed(shop: Shop) -> Iterator[None]:
    for stub in shop.parts["triton"].stubs():
        with suppress(psutil.NoSuchProcess):
            stub.kill()
    yield


def _stubs_stopped(shop: Shop) -> Iterator[None]:
    with held(shop.parts["triton"].stubs()):
        yield


def _redis_drops(shop: Shop) -> Iterator[None]:
    host, _, port = shop.settings.redis_url.rpartition(":")
    with redis.Redis(host=host, port=int(port)) as client:
        for _ in range(DROPS):
            client.client_kill_filter(_type="normal", skipme=True)
    yield


def _postgresql_drops(shop: Shop) -> Iterator[None]:
    with psycopg.connect(shop.settings.database_url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    yield


def _limit_files(part: Part, limit: str) -> None:
    for process in part.family():
        with suppress(psutil.NoSuchProcess):
            user, group = process.uids().real, process.gids().real  # PostgreSQL's, where the bench runs as root
            as_owner = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--"]
            as_owner = [] if user == os.getuid() else as_owner
            command = [*as_owner, "prlimit", "--pid", str(process.pid), f"--fsize={limit}:"]
            subprocess.run(command, stderr=subprocess.DEVNULL)  # it may have ended meanwhile
