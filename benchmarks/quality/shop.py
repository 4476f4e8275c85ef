"""A shop's own offline files, and the simulated shop, which is built first by the project's own commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.quality.task import Task
from features.settings import ROOT
from training.dataset import DataError, read_log
from training.evaluate import Protocol, split_times, stage_by_time

FILES = ("events.parquet", "items.parquet", "users.parquet")
"""What `python -m features build` writes."""
PROTOCOL = Protocol(sample=10_000)


def read_shop(folder: Path, name: str) -> Task:
    """The last tenth of a shop's moments is asked, the tenth before it validates.

    Raises:
        DataError: a file is missing, or there is nothing to learn from.
    """
    log, moments = read_log(folder)
    validation_from_ms, test_from_ms = split_times(moments, None)

    return Task(
        name=name,
        tuning=stage_by_time(log, moments, validation_from_ms, test_from_ms, PROTOCOL),
        final=stage_by_time(log, moments, test_from_ms, int(log.times_ms.max()) + 1, PROTOCOL),
        headline=("recall@10", "ndcg@10"),
        mean_of_shoppers=True,
        files=tuple(folder / name for name in FILES),
    )


def simulate_shop(home: Path) -> Path:
    """Builds the simulated shop in a home of its own, once, and returns its offline folder.

    Raises:
        DataError: a command failed.
    """
    offline = home / "offline"
    if all((offline / name).exists() for name in FILES):
        return offline
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BRAID_")}
    environment["BRAID_HOME"] = str(home)
    events = home / "simulated" / "events.parquet"
    for arguments in (
        ["-m", "demo", "simulate", "--out", str(events.parent)],
        ["-m", "features", "import", str(events), "--mapping", "simulated"],
        ["-m", "features", "build"],
    ):
        code = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment).returncode
        if code:
            command = " ".join(["python", *arguments])
            raise DataError(f"`{command}` ended with exit code {code}; see above, then delete {home} and retry")
    return offline
