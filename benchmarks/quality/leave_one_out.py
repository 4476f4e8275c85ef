"""MovieLens-1M and Amazon Beauty: the last event of each user is asked, the one before it validates.

Both stages learn from everything but these two; at the test the validation event is seen. All items are ranked but the
user's own. Files: `ml-1m.txt.gz` (user and item a line, in order of time, as SASRec's authors publish it, arXiv
1808.09781), or `interactions.parquet` (user_id, item_id, timestamp in seconds, pos: place among the user's events)
with `item2attributes.json` (item to its category and brand numbers).

Amazon Beauty has times, so it is asked in a second way that leaks nothing from the future (arXiv 2507.16289): all
events from a point in time on, at which learning ends.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.quality.flat_log import (
    START_MS,
    bare_catalogue,
    event_moments,
    flat_log,
    full_test,
    learned_moments,
    midnight,
    places,
)
from benchmarks.quality.task import Task, read
from training.dataset import Log
from training.evaluate import Stage
from training.moments import DAY_MS, Ints, Longs

MOVIELENS_FILE = "ml-1m.txt.gz"
BEAUTY_FILE = "interactions.parquet"
ATTRIBUTES_FILE = "item2attributes.json"
BLOCK = 10
"""Events of a visit where there are no times."""
VALIDATION_FROM, TEST_FROM = 0.8, 0.9
"""Share of all events before validation and test of the split by time."""
HEADLINE = ("hr@10", "ndcg@10")


def read_movielens(folder: Path) -> Task:
    """Leave-one-out over `ml-1m.txt.gz`: one event a day, everybody's last on the same day.

    Raises:
        DataError: the file is missing or damaged.
    """
    path = folder / MOVIELENS_FILE
    users, rows = read(path, _pairs)
    user_ids, counts = np.unique(users, return_counts=True)
    item_ids, items = np.unique(rows, return_inverse=True)
    place = np.arange(len(items)) - np.repeat(np.cumsum(counts) - counts, counts)
    days = place + np.repeat(counts.max() - counts, counts)
    blocks = -(-counts // BLOCK)
    log = flat_log(
        bare_catalogue([str(item) for item in item_ids]),
        [f"u:{user}" for user in user_ids],
        counts.astype(np.int64),
        items.astype(np.int32),
        START_MS + days * DAY_MS,
        np.repeat(np.cumsum(blocks) - blocks, counts) + place // BLOCK,
    )
    return _leave_one_out("ml-1m", log, (path,))


def read_beauty(folder: Path, *, by_time: bool) -> Task:
    """Amazon Beauty, leave-one-out or split by time.

    Raises:
        DataError: a file is missing or damaged.
    """
    files = (folder / BEAUTY_FILE, folder / ATTRIBUTES_FILE)
    events, attributes = read(files[0], _reviews), read(files[1], _attributes)
    item_ids, items = np.unique(events["item_id"].to_numpy(), return_inverse=True)
    user_ids, counts = np.unique(events["user_id"].to_numpy(), return_counts=True)
    times_ms = (events["timestamp"] * 1000 + events["pos"].cast(pl.Int64) * 1000).to_numpy()
    log = flat_log(
        bare_catalogue([str(item) for item in item_ids], [attributes.get(str(item)) for item in item_ids]),
        [f"u:{user}" for user in user_ids],
        counts.astype(np.int64),
        items.astype(np.int32),
        times_ms,
        events.select(pl.struct("user_id", "timestamp").rle_id())["user_id"].to_numpy(),
    )
    if by_time:
        return _split_by_time("amazon-beauty-time", log, files)
    return _leave_one_out("amazon-beauty", log, files)


def _leave_one_out(name: str, log: Log, files: tuple[Path, ...]) -> Task:
    counts = np.repeat(np.diff(log.starts), np.diff(log.starts))
    behind = counts - places(log)  # 1 is a user's last event
    asked = counts >= 3  # of fewer events nothing can be held out
    learn = ~asked | (behind > 2)
    moments = learned_moments(log, learn)

    def stage(rows: Longs) -> Stage:
        return Stage(
            log=log, learn=learn, moments=moments, test=full_test(log, event_moments(log, rows), seen_masked=True)
        )

    return Task(
        name=name,
        tuning=stage(np.flatnonzero(asked & (behind == 2))),
        final=stage(np.flatnonzero(asked & (behind == 1))),
        headline=HEADLINE,
        mean_of_shoppers=False,
        files=files,
    )


def _split_by_time(name: str, log: Log, files: tuple[Path, ...]) -> Task:
    """Midnights split the events; every event behind one is asked but a user's first."""
    validation_ms, test_ms = (midnight(np.quantile(log.times_ms, share)) for share in (VALIDATION_FROM, TEST_FROM))
    later = places(log) > 0

    def stage(from_ms: int, to_ms: int) -> Stage:
        learn: npt.NDArray[np.bool_] = log.times_ms < from_ms
        rows = np.flatnonzero(later & ~learn & (log.times_ms < to_ms))
        return Stage(
            log=log,
            learn=learn,
            moments=learned_moments(log, learn),
            test=full_test(log, event_moments(log, rows), seen_masked=True),
        )

    return Task(
        name=name,
        tuning=stage(validation_ms, test_ms),
        final=stage(test_ms, int(log.times_ms.max()) + 1),
        headline=HEADLINE,
        mean_of_shoppers=False,
        files=files,
    )


def _pairs(path: Path) -> tuple[Ints, Ints]:
    """Users and items, (n,) each, users together."""
    with gzip.open(path, "rt") as file:
        lines = file.read().splitlines()
    wrong = next((number for number, line in enumerate(lines, 1) if not line.replace(" ", "", 1).isdigit()), None)
    flat = np.array([] if wrong else " ".join(lines).split(), np.int32)
    if wrong or not lines or len(flat) != 2 * len(lines):
        raise ValueError(f"line {wrong or 1}: a user and an item expected")
    pairs = flat.reshape(-1, 2)
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    return pairs[:, 0], pairs[:, 1]


def _reviews(path: Path) -> pl.DataFrame:
    events = pl.read_parquet(path, columns=["user_id", "item_id", "timestamp", "pos"])
    return events.sort("user_id", "timestamp", "pos")


def _attributes(path: Path) -> dict[str, list[str] | None]:
    """Item to "attribute=<number>" of each of its categories and brands."""
    numbers: dict[str, list[int]] = json.loads(path.read_text())
    return {item: [f"attribute={number}" for number in own] for item, own in numbers.items()}
