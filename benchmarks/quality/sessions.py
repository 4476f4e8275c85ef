"""Diginetica and RetailRocket as next-item data sets are published: sessions to learn from, prefixes to continue.

Files `train_sessions.txt.gz` (one session of item numbers a line) and `test_prefix_target.txt.gz` (prefix, tab,
target), as prepared for GCE-GNN (arXiv 2106.05081) and COTREC (arXiv 2108.10569). Repeats are allowed and nothing is
masked; P@20 is the hit rate at 20. Order in the file is order in time, so times are made up: a day holds 400 sessions,
a second apart from noon on, with a minute between events.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from benchmarks.quality.flat_log import START_MS, bare_catalogue, event_moments, flat_log, full_test, learned_moments
from benchmarks.quality.task import Task, read
from training.evaluate import Stage
from training.moments import DAY_MS, Longs

TRAIN_FILE = "train_sessions.txt.gz"
TEST_FILE = "test_prefix_target.txt.gz"
SESSIONS_A_DAY = 400
EVENT_GAP_MS = 60_000
VALIDATION_SHARE = 10
"""The last session in so many is for validation."""
VALIDATION_MOMENTS = 10_000
SEED = 7

Sessions = list[list[int]]


def read_sessions(folder: Path) -> Task:
    """The task of a folder with the two files; its name is the folder's.

    Raises:
        DataError: a file is missing or damaged.
    """
    train = read(folder / TRAIN_FILE, _train)
    test, asked = read(folder / TEST_FILE, _test)
    sessions = train + test
    counts = np.array([len(session) for session in sessions], np.int64)
    flat = np.array([item for session in sessions for item in session], np.int64)
    ids, items = np.unique(flat, return_inverse=True)
    number = np.arange(len(sessions))
    starts = np.cumsum(counts) - counts
    begin_ms = START_MS + number // SESSIONS_A_DAY * DAY_MS + number % SESSIONS_A_DAY * 1000
    session = np.repeat(number, counts)
    times_ms = begin_ms[session] + (np.arange(len(flat)) - starts[session]) * EVENT_GAP_MS
    log = flat_log(
        bare_catalogue([str(item) for item in ids]),
        [f"s:{row}" for row in number],
        counts,
        items.astype(np.int32),
        times_ms,
        session,
    )
    validation_from = len(train) - len(train) // VALIDATION_SHARE
    learn, learn_first = session < len(train), session < validation_from
    place = np.arange(len(flat)) - starts[session]
    known = np.bincount(items[learn_first], minlength=len(ids)) > 0
    shortest = min(before for _, before in asked)
    held_out = np.flatnonzero(learn & ~learn_first & (place >= shortest) & known[items])
    if len(held_out) > VALIDATION_MOMENTS:
        held_out = np.random.default_rng(SEED).choice(held_out, VALIDATION_MOMENTS, replace=False)
    questions = np.array([starts[len(train) + row] + place for row, place in asked], np.int64)

    def stage(learned: np.ndarray[tuple[int], np.dtype[np.bool_]], rows: Longs) -> Stage:
        test = full_test(log, event_moments(log, rows), seen_masked=False)
        return Stage(log=log, learn=learned, moments=learned_moments(log, learned), test=test)

    return Task(
        name=folder.resolve().name,
        tuning=stage(learn_first, held_out),
        final=stage(learn, questions),
        headline=("hr@20", "mrr@20"),
        mean_of_shoppers=False,
        files=(folder / TRAIN_FILE, folder / TEST_FILE),
    )


def _train(path: Path) -> Sessions:
    """Sessions of at least one item."""
    sessions: Sessions = []
    for number, line in enumerate(_lines(path), 1):
        sessions.append(_items(line, number))
    return sessions


def _test(path: Path) -> tuple[Sessions, list[tuple[int, int]]]:
    """Sessions that prefixes were cut from, and each question as (session, place of the target).

    A prefix that is the line before without its target belongs to the same session: it is then one shopper, and the
    same events stand before the target as in the file.
    """
    sessions: Sessions = []
    asked: list[tuple[int, int]] = []
    before: list[int] = []
    for number, line in enumerate(_lines(path), 1):
        prefix, tab, target = line.partition("\t")
        if not tab or len(target.split()) != 1:
            raise ValueError(f"line {number}: a prefix, a tab and one target expected")
        items = _items(prefix, number)
        whole = items + _items(target, number)
        if whole != before:
            sessions.append(whole)
        asked.append((len(sessions) - 1, len(items)))
        before = items
    return sessions, asked


def _lines(path: Path) -> list[str]:
    with gzip.open(path, "rt") as file:
        lines = file.read().splitlines()
    if not lines:
        raise ValueError("no line")
    return lines


def _items(text: str, number: int) -> list[int]:
    items = [int(word) for word in text.split() if word.isdigit()]
    if not items or len(items) != len(text.split()):
        raise ValueError(f"line {number}: item numbers expected, one at least")
    return items
