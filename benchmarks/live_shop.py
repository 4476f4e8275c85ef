"""A shop for a measurement: fresh databases, a gateway and stream workers, gone at the end.

Two profiles: `sqlite` keeps everything in SQLite files, `postgresql+redis` has a PostgreSQL and a Redis of its own.
Both are as durable as a shop's: every commit is flushed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import grpc
import redis
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks import postgres
from deploy.embedded.triton import clear_leftovers
from features.settings import Settings
from features.stream.worker import heartbeat_file
from tests.conditions import eventually
from tests.processes import environment, free_ports, required_binary, running, until_up

Profile = Literal["sqlite", "postgresql+redis"]
PROFILES: tuple[Profile, ...] = ("sqlite", "postgresql+redis")

START_S = 600.0
CHANNEL = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]


class LiveShop:
    """The processes of one shop; `parts` ends them."""

    def __init__(self, settings: Settings, parts: ExitStack) -> None:
        self.settings = settings
        self._parts = parts

    def start_gateway(self, **variables: str) -> subprocess.Popen[bytes]:
        """Starts a gateway and waits until it serves; `variables` are BRAID_GATEWAY_ ones, in lower case."""
        return self._parts.enter_context(gateway_on(self.settings, stop_signal=signal.SIGKILL, **variables))

    def start_triton(self) -> subprocess.Popen[bytes]:
        """Starts Triton; a gateway waits for it. Its shared memory is gone at the end, although it is killed."""
        self._parts.callback(clear_leftovers, self.settings)
        return self._start("triton", "deploy.embedded.triton")

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Starts a stream worker; `until_it_follows` waits for it."""
        return self._start("stream", "features", "stream")

    def until_it_follows(self, worker: subprocess.Popen[bytes]) -> None:
        """Waits until the worker follows the log."""
        beat, log = heartbeat_file(self.settings, worker.pid), self.settings.logs / "stream.log"
        until_up(worker, beat.exists, log, within_s=START_S, what="the stream worker")

    def _start(self, name: str, *module: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", *module]
        log = self.settings.logs / f"{name}.log"
        return self._parts.enter_context(
            running(command, log, env=environment(self.settings), stop_signal=signal.SIGKILL)
        )


@contextmanager
def gateway_on(
    settings: Settings,
    *,
    log: str = "gateway",
    module: str = "server",
    stop_signal: signal.Signals = signal.SIGTERM,
    **variables: str,
) -> Iterator[subprocess.Popen[bytes]]:
    """A gateway that serves; `variables` are BRAID_GATEWAY_ ones, in lower case."""
    own = {f"BRAID_GATEWAY_{name.upper()}": value for name, value in variables.items()}
    path = settings.logs / f"{log}.log"
    command = [sys.executable, "-m", module]
    with running(command, path, env=environment(settings, **own), stop_signal=stop_signal) as process:
        with grpc.insecure_channel(settings.gateway_address, CHANNEL) as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            def serves() -> bool:
                return bool(stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status == 1)

            until_up(process, serves, path, within_s=START_S, what="the gateway")
        yield process


@contextmanager
def live_shop(profile: Profile) -> Iterator[LiveShop]:
    """An empty shop without processes yet."""
    with ExitStack() as servers, fresh_shop({} if profile == "sqlite" else _servers(servers)) as shop:
        yield shop


@contextmanager
def fresh_shop(overrides: dict[str, str]) -> Iterator[LiveShop]:
    """An empty shop on a disk, without processes yet; its settings but for home and addresses are `overrides`."""
    with ExitStack() as parts:
        home = Path(parts.enter_context(TemporaryDirectory(dir="/var/tmp", prefix="braid-shop-")))
        ports = free_ports(4)
        settings = Settings(
            home=home,
            model_repository=home / "model_repository",
            gateway_address=f"127.0.0.1:{ports}",
            triton_address=f"127.0.0.1:{ports + 2}",
            **overrides,  # type: ignore[arg-type]
        )
        yield LiveShop(settings, parts)


def _servers(parts: ExitStack) -> dict[str, str]:
    if not postgres.installed():
        raise SystemExit("PostgreSQL's binaries are missing: sudo apt-get install postgresql")
    url = parts.enter_context(postgres.cluster())
    folder = Path(parts.enter_context(TemporaryDirectory(prefix="braid-redis-")))
    port = free_ports()
    binary = required_binary("redis-server", "redis-server")
    command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    parts.enter_context(running(command, folder / "redis.log"))
    with redis.Redis(port=port) as client:
        eventually(client.ping, what="Redis' first answer")
    return {"database_url": url, "online_store": "redis", "redis_url": f"127.0.0.1:{port}"}
