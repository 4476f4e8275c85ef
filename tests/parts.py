"""Processes below and beside a gateway that are ended, held and started again on purpose."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from deploy.embedded.triton import STUB
from tests.conditions import eventually
from tests.postgres import answers, new_cluster
from tests.processes import running


class Part:
    """A process that may be ended and started again."""

    def __init__(self, parts: ExitStack, command: list[str], log: Path, env: dict[str, str] | None = None) -> None:
        self._parts, self._command, self._log, self._env = parts, command, log, env
        self.start()

    def start(self) -> None:
        """Starts it, again or for the first time."""
        self._log_begins = self._log.stat().st_size if self._log.exists() else 0
        self.process = self._parts.enter_context(
            running(self._command, self._log, env=self._env, stop_signal=signal.SIGKILL)
        )

    def said(self, words: str) -> bool:
        """Whether its log has these words since it was started last."""
        return words.encode() in self._log.read_bytes()[self._log_begins :]

    def kill(self) -> None:
        """With all its children."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def revive(self) -> None:
        """Starts it where it has ended, as its supervisor would."""
        if self.process.poll() is not None:
            self.start()

    def stop(self) -> None:
        """It hangs."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """It hangs no longer."""
        self.process.send_signal(signal.SIGCONT)

    @contextmanager
    def slowed(self, held_s: float, between_s: float) -> Iterator[None]:
        """It and all below it are held for so long, again and again, and go on for so long in between."""
        end = threading.Event()

        def pulse() -> None:
            while not end.wait(between_s):
                with held(self.family()):
                    end.wait(held_s)

        pulsing = threading.Thread(target=pulse)
        pulsing.start()
        try:
            yield
        finally:
            end.set()
            pulsing.join()

    def family(self) -> list[psutil.Process]:
        """It and all below it."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.process.pid)
            return [process, *process.children(recursive=True)]
        return []

    def stubs(self) -> list[psutil.Process]:
        """The processes that run Triton's models, where it is Triton."""
        return [child for child in self.family()[1:] if STUB in child.name() or STUB[:15] in child.name()]


@contextmanager
def held(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """They hang; those that end meanwhile do not matter."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


@contextmanager
def stoppable(process: Part) -> Iterator[Part]:
    """Stopped processes are not left behind."""
    try:
        yield process
    finally:
        process.go_on()


def stoppable_postgresql(parts: ExitStack, *, durable: bool = False) -> tuple[Part, str]:
    """A PostgreSQL of its own that answers, and its URL; `durable` as in `new_cluster`."""
    folder = parts.enter_context(TemporaryDirectory(prefix="braid-postgres-"))
    cluster = new_cluster(Path(folder), durable=durable)
    part = parts.enter_context(stoppable(Part(parts, cluster.command, cluster.log)))
    eventually(lambda: answers(cluster.url), within_s=60, what="PostgreSQL's first answer")
    return part, cluster.url
