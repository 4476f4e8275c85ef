"""Stream workers: as a thread of the test's own, and as processes that start fast and are killed without warning."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess

from features.settings import Settings
from features.stream import worker as stream_worker

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["features.stream.worker"])


@contextmanager
def following(settings: Settings) -> Iterator[None]:
    """A worker on a thread of this process, which starts at once."""
    stop = threading.Event()
    thread = threading.Thread(target=stream_worker.run, args=(settings, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Workers:
    """Some workers of one shop."""

    def __init__(self, settings: Settings, count: int) -> None:
        self._settings = settings
        self._running = [self._start() for _ in range(count)]

    @property
    def pids(self) -> list[int]:
        """Their processes."""
        return [process.pid for process in self._running if process.pid]

    def kill(self, number: int) -> None:
        """Kills one and starts another in its place."""
        _kill(self._running[number])
        self._running[number] = self._start()

    def kill_all(self) -> None:
        """Leaves none."""
        while self._running:
            _kill(self._running.pop())

    def _start(self) -> ForkServerProcess:
        process = _context.Process(target=_follow, args=(self._settings,), daemon=True)
        process.start()
        return process


@contextmanager
def workers(settings: Settings, count: int) -> Iterator[Workers]:
    """`count` workers on the shop, until the end."""
    running = Workers(settings, count)
    try:
        yield running
    finally:
        running.kill_all()


def _follow(settings: Settings) -> None:
    stream_worker.run(settings, threading.Event())


def _kill(process: ForkServerProcess) -> None:
    process.kill()
    process.join()
