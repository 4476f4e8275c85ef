"""The processes of a shop's stack, also those that nobody watches any more."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import psutil

from deploy.embedded.sockets import control_socket
from features.settings import Settings


def of(settings: Settings) -> list[psutil.Process]:
    """supervisord and everything below it, or what it left when it was killed; empty while the stack is down."""
    try:
        run = settings.home.resolve() / "run"
        supervisord = psutil.Process(int((run / "supervisord.pid").read_text()))
        if str(run / "supervisord.conf") in supervisord.cmdline():  # else the number is somebody else's by now
            return [supervisord, *supervisord.children(recursive=True)]
    except (OSError, ValueError, psutil.Error):
        pass
    return left_running(settings)


def left_running(settings: Settings) -> list[psutil.Process]:
    """Programs of a supervisord that is no more, and everything below them: its address is in their environment."""
    address = f"unix://{control_socket(settings)}"
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has just ended, or is another user's
            if process.environ().get("SUPERVISOR_SERVER_URL") == address:
                found.append(process)
    return found


def terminate(running: Sequence[psutil.Process]) -> None:
    """Asks those of the processes to end that none of the others has started."""
    pids = {process.pid for process in running}
    for process in running:
        with suppress(psutil.NoSuchProcess):
            if process.ppid() not in pids:
                process.terminate()


def memory_bytes(pid: int) -> int:
    """Proportional memory (PSS) of a process and its children: pages that several share are counted once."""
    try:
        process = psutil.Process(pid)
        return sum(member.memory_full_info().pss for member in [process, *process.children(recursive=True)])
    except psutil.NoSuchProcess:
        return 0
