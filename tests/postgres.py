"""PostgreSQL clusters of our own, on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.processes import free_ports, required_binary, running, until_up

FOLDERS = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]


@dataclass(frozen=True, slots=True)
class Cluster:
    """An initialised data folder and how to serve it."""

    command: list[str]
    log: Path
    url: str
    """Of the database `postgres`."""


def new_cluster(folder: Path, *, durable: bool = False) -> Cluster:
    """An empty cluster in a folder that every user may enter; it flushes nothing unless it is `durable`."""
    initdb = required_binary("initdb", "postgresql", *FOLDERS)
    postgres = required_binary("postgres", "postgresql", *FOLDERS)
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
        shutil.chown(folder, "postgres", "postgres")
    flags = ["-U", "braid", "--auth=trust", "--encoding=UTF8", "--locale=C", *([] if durable else ["--no-sync"])]
    command = [*as_user, initdb, "-D", str(folder / "data"), *flags]
    made = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert made.returncode == 0, f"initdb failed: {made.stderr}"
    port = free_ports()
    options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "port": str(port)}
    if not durable:
        options["fsync"] = "off"
    flags = [part for option, value in options.items() for part in ("-c", f"{option}={value}")]
    return Cluster(
        command=[*as_user, postgres, "-D", str(folder / "data"), *flags],
        log=folder / "postgres.log",
        url=f"postgresql://braid@127.0.0.1:{port}/postgres",
    )


@contextmanager
def serving(cluster: Cluster, *, stop_signal: signal.Signals = signal.SIGINT) -> Iterator[None]:
    """The cluster, answering; SIGQUIT ends it as a crash would."""
    with running(cluster.command, cluster.log, stop_signal=stop_signal) as process:
        until_up(process, lambda: answers(cluster.url), cluster.log, what="PostgreSQL")
        yield


def answers(url: str) -> bool:
    """True; where nobody answers, psycopg says why."""
    psycopg.connect(url).close()
    return True
