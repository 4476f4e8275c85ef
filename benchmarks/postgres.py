"""A PostgreSQL of a benchmark's own, with its defaults for durability, where the binaries are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def installed() -> Path | None:
    """The folder of the newest binaries."""
    folders = [Path(found).parent] if (found := shutil.which("initdb")) else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


@contextmanager
def cluster(binaries: Path, port: int) -> Iterator[str]:
    """A fresh cluster on a disk and on loopback; yields the URL of an empty database."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="braid-postgres-") as name:
        as_user: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
            shutil.chown(name, "postgres", "postgres")
        data = f"{name}/data"

        def run(program: str, *arguments: str) -> None:
            subprocess.run(
                [*as_user, str(binaries / program), "-D", data, *arguments],
                check=True,
                stdout=subprocess.DEVNULL,
                cwd=name,
            )

        run("initdb", "-U", "braid", "--auth=trust", "--encoding=UTF8", "--locale=C")
        options = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c port={port}"
        run("pg_ctl", "-w", "-l", f"{name}/log", "-o", options, "start")
        try:
            yield f"postgresql://braid@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-w", "-m", "fast", "stop")
