"""Which set of data a folder holds, told by its files."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path

from benchmarks.quality import leave_one_out, online_retail, sessions, shop
from benchmarks.quality.task import Task
from benchmarks.record import RESULTS
from training.dataset import DataError

SIMULATED = "simulated"
"""In place of a folder: the shop that `python -m demo simulate` writes."""
CACHE = RESULTS / "quality"


class SplitBy(str, Enum):
    """How Amazon Beauty is split; other sets have one way."""

    LEAVE_ONE_OUT = "leave-one-out"
    TIME = "time"


def open_task(data: str, split_by: SplitBy, cache: Path = CACHE) -> Task:
    """Reads the set of data in a folder.

    Args:
        data: a folder, or `SIMULATED`.
        cache: gets what is made from the files.

    Raises:
        DataError: there is no such folder, its files are of no known set, or one of them is damaged.
    """
    folder = Path(data)
    if data != SIMULATED and not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give one with the files of a data set, or `{SIMULATED}`")
    by_time = split_by is SplitBy.TIME
    if by_time and not (folder / leave_one_out.BEAUTY_FILE).exists():
        raise DataError(f"--protocol time needs {leave_one_out.BEAUTY_FILE}, which is not in {data}; leave it out")
    if data == SIMULATED:
        return shop.read_shop(shop.simulate_shop(cache / SIMULATED / "home"), SIMULATED)
    readers: dict[str, Callable[[], Task]] = {
        leave_one_out.BEAUTY_FILE: lambda: leave_one_out.read_beauty(folder, by_time=by_time),
        leave_one_out.MOVIELENS_FILE: lambda: leave_one_out.read_movielens(folder),
        sessions.TRAIN_FILE: lambda: sessions.read_sessions(folder),
        online_retail.FILE: lambda: online_retail.read_online_retail(folder, cache / online_retail.NAME / "offline"),
        shop.FILES[0]: lambda: shop.read_shop(folder, _shop_name(folder.resolve())),
    }
    for file, reader in readers.items():
        if (folder / file).exists():
            return reader()
    raise DataError(f"{folder}: none of {', '.join(readers)} is there; give the folder of a data set, or `{SIMULATED}`")


def _shop_name(folder: Path) -> str:
    """A shop's files lie in `<home>/offline`."""
    return folder.parent.name if folder.name == "offline" else folder.name
