"""Real processes for tests: free ports, environments, servers that are stopped again, and their output on failure."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from features.settings import ROOT, Settings
from tests.conditions import eventually


def free_ports(count: int = 1) -> int:
    """The first of `count` consecutive loopback ports that nobody listens on, below the range of outgoing ports."""
    for first in range(20000 + os.getpid() % 1000 * 10, 32000, count):
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise AssertionError(f"no {count} consecutive free ports below 32000")


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """This process's environment with `settings` as BRAID_ variables, for a child process."""
    values = {f"BRAID_{name.upper()}": str(value) for name, value in settings.model_dump().items()}
    values["BRAID_ERASURE_KEY"] = settings.erasure_key.get_secret_value()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BRAID_")}
    return inherited | values | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | more


def required_binary(name: str, package: str, *folders: str) -> str:
    """The path of a program that the tests need.

    Raises:
        AssertionError: it is not installed; the message names the package. Tests fail then, they are not skipped.
    """
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *folders]))
    assert path, f"{name} is not installed: sudo apt-get install {package}"
    return path


@contextmanager
def running(
    command: Sequence[str],
    log: Path,
    *,
    env: dict[str, str] | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    stop_within_s: float = 40.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process in a group of its own, its output in `log`; the whole group is gone at the end."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        process.send_signal(stop_signal)
        try:
            process.wait(stop_within_s)
        except subprocess.TimeoutExpired:
            _kill_group(process.pid)
            process.wait()
            raise AssertionError(f"{command[0]} ignored {stop_signal.name}; its log:\n{tail(log)}") from None
        _kill_group(process.pid)


def until_up(
    process: subprocess.Popen[bytes], up: Callable[[], object], log: Path, *, within_s: float = 60.0, what: str
) -> None:
    """Waits until a process is up; an exception of `up` counts as "not yet".

    Raises:
        AssertionError: it has ended instead, or is not up within `within_s`.
    """
    eventually(lambda: process.poll() is not None or up(), within_s=within_s, every_s=0.05, what=f"{what}'s start")
    assert process.poll() is None, f"{what} ended; its log:\n{tail(log)}"


def tail(log: Path, lines: int = 40) -> str:
    """The end of a log file, for a failure message."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
