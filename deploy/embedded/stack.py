"""The stack of one machine under supervisord: started, watched and stopped through its control socket."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, cast
from xmlrpc.client import Fault, ServerProxy

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc
from supervisor.xmlrpc import SupervisorTransport

from deploy.embedded import gateway, processes, triton
from deploy.embedded.checks import Check
from deploy.embedded.sockets import control_socket, gateway_socket
from features.settings import ROOT, Settings
from server import local_socket
from server.direct import DIRECT

TEMPLATE = Path(__file__).parent / "supervisord.conf"
FAILURES_TO_GIVE_UP = 3
STOP_S = 90.0
"""Time for every program to end."""


class StackError(Exception):
    """The stack cannot be started or stopped; the message says why and what to do."""


class ProgramKeepsEnding(StackError):
    """A program ends each time that it is started; waiting does not help."""


@dataclass(frozen=True)
class Program:
    """A supervised program. `pid` is 0 while it does not run; `since` is when its state began, in Unix seconds."""

    name: str
    state: str
    pid: int
    since: float

    @property
    def failing(self) -> bool:
        """It ended by itself and waits to be started again."""
        return self.state in ("BACKOFF", "EXITED", "FATAL")


def log_file(settings: Settings, program: str) -> Path:
    """Where a program writes."""
    return settings.logs.resolve() / f"{program}.log"


def requirements(settings: Settings) -> list[Check]:
    """What the whole stack needs of this machine, before it is started.

    Raises:
        SystemExit: a setting is wrong; a line for each.
    """
    return [*triton.requirements(settings), *gateway.requirements(settings)]


@contextmanager
def _in_turn(settings: Settings) -> Iterator[None]:
    """Waits until nobody else starts or stops this shop's stack: the shop's home is locked, or where that will be.

    A folder, since a start that is refused leaves no file behind.
    """
    home = settings.home.resolve()
    with ExitStack() as held:
        with suppress(OSError):  # it may not be read, or a network's file system locks no folders
            folder = os.open(next(place for place in (home, *home.parents) if place.is_dir()), os.O_RDONLY)
            held.callback(os.close, folder)
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield


def is_up(settings: Settings) -> bool:
    """Whether supervisord answers."""
    try:
        with _supervisor(settings) as supervisor:
            supervisor.getState()
    except OSError:
        return False
    return True


def programs(settings: Settings) -> list[Program]:
    """Every program and its state; empty while the stack is down.

    Raises:
        StackError: it is being stopped.
    """
    try:
        with _supervisor(settings) as supervisor:
            found: list[dict[str, Any]] = supervisor.getAllProcessInfo()
    except OSError:
        return []
    except Fault:
        raise _being_stopped(settings) from None
    states = [
        Program(entry["name"], entry["statename"], entry["pid"], max(entry["start"], entry["stop"])) for entry in found
    ]
    return sorted(states, key=lambda program: program.name)


def start(settings: Settings) -> bool:
    """Starts supervisord, or the programs that a running one has stopped. False: it ran already.

    Raises:
        StackError: this machine lacks something (one line each), supervisord did not come up or is being stopped, or
            what a killed one left running does not end.
        SystemExit: a setting is wrong, the database cannot be opened, or everybody could call the gateway.
    """
    with _in_turn(settings):
        try:
            with _supervisor(settings) as supervisor:
                supervisor.startAllProcesses(False)
        except OSError:
            if processes.of(settings):
                _stop(settings)  # a supervisor that was killed has left its programs, and nobody starts them again
            _start_supervisord(settings)
            return True
        except Fault:
            raise _being_stopped(settings) from None
        return False


def _being_stopped(settings: Settings) -> StackError:
    return StackError(f"The stack in {settings.home} is being stopped. Wait until it is down, then try again")


def _start_supervisord(settings: Settings) -> None:
    if failed := [check for check in requirements(settings) if not check.ok]:
        raise StackError("\n".join(check.line() for check in failed))
    gateway.check_database(settings)
    config = write_config(settings)
    started = subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)],
        cwd=ROOT,
        env=environment(settings),
        capture_output=True,
        text=True,
    )
    log = log_file(settings, "supervisord")
    if started.returncode:
        raise StackError(f"supervisord did not start: {started.stdout.strip() or started.stderr.strip()} (log: {log})")
    deadline = time.monotonic() + 10
    while not is_up(settings):
        if time.monotonic() > deadline:
            raise StackError(f"supervisord does not answer at {control_socket(settings)}; read {log}")
        time.sleep(0.02)


def write_config(settings: Settings) -> Path:
    """Fills in supervisord.conf for this shop.

    Raises:
        StackError: a path has a percent sign, which supervisord would expand, once here and twice there.
    """
    run = settings.home.resolve() / "run"
    if "%" in f"{run}{ROOT}":
        raise StackError(f"supervisord cannot take a percent sign in a path: {run}. Set BRAID_HOME to another folder")
    run.mkdir(parents=True, exist_ok=True)
    settings.logs.mkdir(parents=True, exist_ok=True)
    closed = gateway_socket(settings).parent
    closed.mkdir(exist_ok=True)
    closed.chmod(0o700)
    values = {
        "root": str(ROOT),
        "run": str(run),
        "logs": str(settings.logs.resolve()),
        "socket": str(control_socket(settings)),
        "python": shlex.quote(sys.executable),
    }
    config = run / "supervisord.conf"
    config.write_text(Template(TEMPLATE.read_text()).substitute(values))
    return config


def environment(settings: Settings) -> dict[str, str]:
    """What the programs inherit: this environment, with the shop's folders made absolute and the venv on PATH."""
    return os.environ | {
        "BRAID_HOME": str(settings.home.resolve()),
        "BRAID_MODEL_REPOSITORY": str(settings.model_repository.resolve()),
        "BRAID_GATEWAY_LOCAL_SOCKET": str(gateway_socket(settings)),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "proto")]),
    }


def wait_until_serving(settings: Settings, within_s: float) -> Iterator[str]:
    """Watches the start until the gateway's health is SERVING; yields a line for each change on the way.

    Raises:
        ProgramKeepsEnding: one does; the message holds its last line and names its log.
        StackError: it takes longer than `within_s`; the message names the logs to read.
    """
    started = time.monotonic()
    seen: dict[str, str] = {}
    failures: dict[str, set[float]] = {}
    with _channel(settings) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        while True:
            now = programs(settings)
            if seen and not now:
                raise StackError("The stack was stopped meanwhile")
            for program in now:
                if seen.get(program.name) != program.state:
                    seen[program.name] = program.state
                    yield f"{program.name}: {program.state.lower()}"
                if program.failing:
                    failures.setdefault(program.name, set()).add(program.since)
                    if len(failures[program.name]) >= FAILURES_TO_GIVE_UP or program.state == "FATAL":
                        raise ProgramKeepsEnding(_failure(settings, program.name))
            if seen.get("gateway") == "RUNNING":
                status = _health(health)
                if seen.get("health") != status:
                    seen["health"] = status
                    yield f"gateway's health: {status}"
                if status == "SERVING":
                    return
            if time.monotonic() - started > within_s:
                waiting = "gateway" if seen.get("gateway") == "RUNNING" else "supervisord"
                raise StackError(
                    f"Not serving after {within_s:.0f} s; it goes on trying. Read {log_file(settings, waiting)} "
                    f"and {log_file(settings, 'triton')}"
                )
            time.sleep(0.05)


def health(settings: Settings) -> str:
    """The gateway's health: SERVING, NOT_SERVING, or why it could not be asked."""
    with _channel(settings) as channel:
        return _health(health_pb2_grpc.HealthStub(channel))


def stop(settings: Settings) -> bool:
    """Stops everything, gateway first, and leaves neither process nor shared memory. False: it was down already.

    Raises:
        StackError: it did not stop in time; the message names the process.
    """
    with _in_turn(settings):
        return _stop(settings)


def _stop(settings: Settings) -> bool:
    running = processes.of(settings)
    if running:
        try:
            with _supervisor(settings) as supervisor:
                supervisor.shutdown()
        except (OSError, Fault):  # it is on its way out, or its socket is gone, or it is: the signal says the same
            processes.terminate(running)
        _, alive = psutil.wait_procs(running, timeout=STOP_S)
        if alive:
            raise StackError(f"Still running after {STOP_S:.0f} s: {alive[0]}; stop it with kill -9 {alive[0].pid}")
    triton.clear_leftovers(settings)
    control_socket(settings).unlink(missing_ok=True)
    shutil.rmtree(gateway_socket(settings).parent, ignore_errors=True)
    return bool(running)


def _failure(settings: Settings, program: str) -> str:
    log = log_file(settings, program)
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")
    return f"{program} keeps ending: {last}\nRead {log}"


@contextmanager
def _supervisor(settings: Settings) -> Iterator[Any]:
    """supervisord's procedures.

    Raises:
        OSError: nobody listens on its socket.
    """
    path = control_socket(settings)
    if not path.exists():
        raise FileNotFoundError(path)
    transport = SupervisorTransport(None, None, f"unix://{path}")
    try:
        yield ServerProxy("http://127.0.0.1", transport=transport).supervisor
    finally:
        transport.close()


def _channel(settings: Settings) -> grpc.Channel:
    """To the stack's own gateway by its local socket; while the stack is down, to whoever serves at the address."""
    target = local_socket.target(gateway_socket(settings)) if is_up(settings) else settings.gateway_address
    options = [DIRECT, ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
    return grpc.insecure_channel(target, options=options)


def _health(stub: health_pb2_grpc.HealthStub) -> str:
    try:
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=2)
    except grpc.RpcError as error:
        return str(cast(grpc.Call, error).code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
