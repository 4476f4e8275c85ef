"""A PostgreSQL of a benchmark's own, with its defaults for durability, where the binaries are installed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.postgres import FOLDERS, new_cluster, serving


def installed() -> bool:
    """Whether there is a PostgreSQL to start."""
    return shutil.which("initdb", path=os.pathsep.join([os.environ.get("PATH", ""), *FOLDERS])) is not None


@contextmanager
def cluster() -> Iterator[str]:
    """A fresh cluster on a disk and on loopback; yields the URL of an empty database."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="braid-postgres-") as name:
        made = new_cluster(Path(name), durable=True)
        with serving(made):
            yield made.url
