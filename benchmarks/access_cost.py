"""What TLS and API keys cost a call: the same gateway open, with keys, and with keys over mutual TLS, in one run.

    python -m benchmarks.access_cost [--calls 2000]

Three gateways on one empty shop, so that a call is as small as it gets and the share of its cost the largest. The kinds
take turns in rounds. Prints Recommend's latency at concurrency 1, calls per second at concurrency 16, and the gateway's
CPU time for a call, each with its ratio to the open gateway's; keeps them as JSON in benchmarks/results/.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import numpy as np
import psutil
import typer
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.table import Table

from benchmarks import record
from benchmarks.latency import ROUNDS, WARM_UP_CALLS
from braid.v1 import recommendation_pb2 as pb
from braid.v1 import recommendation_pb2_grpc
from features.database.engine import open_database
from features.settings import Settings
from features.terminal import console
from server.access.key_table import KeyTable
from server.access.scopes import Scope
from tests.certificates import Authority
from tests.conditions import eventually_async
from tests.processes import environment, free_ports, running

OPEN, KEYS, MUTUAL = "open", "API key", "API key, mutual TLS"
CONCURRENCY = 16
NEVER_REFUSES = {"BRAID_GATEWAY_TARGET_DELAY_MS": "10000"}


class Target:
    """One gateway and the calls to it."""

    def __init__(self, channel: grpc.aio.Channel, process: psutil.Process, secret: str) -> None:
        self.latencies_s: list[float] = []
        self.cpu_s = 0.0
        self.busy_s = 0.0
        self._health = health_pb2_grpc.HealthStub(channel)
        self._recommend = recommendation_pb2_grpc.RecommendationServiceStub(channel).Recommend
        self._process = process
        self._metadata = [("authorization", f"Bearer {secret}")] if secret else None

    async def ready(self) -> None:
        """Waits until it serves."""

        async def serves() -> bool:
            status = (await self._health.Check(health_pb2.HealthCheckRequest(), timeout=5)).status
            return bool(status == health_pb2.HealthCheckResponse.SERVING)

        await eventually_async(serves, within_s=60, what="a gateway's start")
        for _ in range(WARM_UP_CALLS):
            await self._call()

    async def one_after_the_other(self, calls: int) -> None:
        """Adds to the latencies."""
        for _ in range(calls):
            began_s = time.perf_counter()
            await self._call()
            self.latencies_s.append(time.perf_counter() - began_s)

    async def at_once(self, calls: int) -> None:
        """Adds to the time and the gateway's CPU time of calls at `CONCURRENCY`."""

        async def some() -> None:
            for _ in range(calls // CONCURRENCY):
                await self._call()

        cpu_s, began_s = sum(self._process.cpu_times()[:2]), time.perf_counter()
        await asyncio.gather(*(some() for _ in range(CONCURRENCY)))
        self.busy_s += time.perf_counter() - began_s
        self.cpu_s += sum(self._process.cpu_times()[:2]) - cpu_s

    async def _call(self) -> None:
        await self._recommend(pb.RecommendRequest(user_id="u"), timeout=10, metadata=self._metadata)


def main(calls: int = typer.Option(2_000, min=ROUNDS * CONCURRENCY, help="Calls of each kind.")) -> None:
    """The cost of TLS and keys."""
    with TemporaryDirectory(prefix="braid-access-") as folder, ExitStack() as gateways:
        authority = Authority(Path(folder) / "certificates")
        server, customer = authority.sign("server"), authority.sign("customer")
        tls = {
            "BRAID_GATEWAY_TLS_CERTIFICATE": str(server.certificate),
            "BRAID_GATEWAY_TLS_KEY": str(server.key),
            "BRAID_GATEWAY_TLS_CLIENT_CA": str(authority.file),
        }
        started: dict[str, tuple[str, int, str]] = {}
        ports = free_ports(3)
        for number, name in enumerate((OPEN, KEYS, MUTUAL)):
            home = Path(folder) / name.replace(" ", "-")
            settings = Settings(home=home, model_repository=home, gateway_address=f"localhost:{ports + number}")
            secret = "" if name == OPEN else _key(settings)
            env = environment(settings, **NEVER_REFUSES, **(tls if name == MUTUAL else {}))
            command = [sys.executable, "-m", "server"]
            process = gateways.enter_context(running(command, settings.logs / "gateway.log", env=env))
            started[name] = settings.gateway_address, process.pid, secret
        credentials = grpc.ssl_channel_credentials(
            authority.file.read_bytes(), customer.key.read_bytes(), customer.certificate.read_bytes()
        )
        figures = uvloop.run(measure(started, credentials, calls))
    show(figures)
    console.print(f"{record.write('access-cost', {'calls': calls, 'measured': figures})}")


def _key(settings: Settings) -> str:
    engine = open_database(settings.log_url)
    _, secret = KeyTable(engine).create("benchmark", [Scope.STOREFRONT], calls_per_s=1e6, burst=1_000_000)
    engine.dispose()
    return secret


async def measure(
    started: dict[str, tuple[str, int, str]], credentials: grpc.ChannelCredentials, calls: int
) -> dict[str, dict[str, float]]:
    """Figures by kind."""
    targets: dict[str, Target] = {}
    for name, (address, pid, secret) in started.items():
        plain = name != MUTUAL
        channel = grpc.aio.insecure_channel(address) if plain else grpc.aio.secure_channel(address, credentials)
        targets[name] = Target(channel, psutil.Process(pid), secret)
        await targets[name].ready()
    for _ in range(ROUNDS):
        for target in targets.values():
            await target.one_after_the_other(calls // ROUNDS)
        for target in targets.values():
            await target.at_once(calls // ROUNDS)
    at_once = ROUNDS * (calls // ROUNDS // CONCURRENCY) * CONCURRENCY
    return {
        name: {
            "p50_ms": float(np.percentile(target.latencies_s, 50)) * 1000,
            "p99_ms": float(np.percentile(target.latencies_s, 99)) * 1000,
            "calls_per_s": at_once / target.busy_s,
            "cpu_us_a_call": 1e6 * target.cpu_s / at_once,
        }
        for name, target in targets.items()
    }


def show(figures: dict[str, dict[str, Any]]) -> None:
    """The table, with ratios to the open gateway."""
    table = Table("Recommend", "p50 ms", "p99 ms", "calls/s at 16", "gateway's CPU, µs a call")
    for name, values in figures.items():
        cells = [f"{value:.2f} ({value / figures[OPEN][key]:.2f})" for key, value in values.items()]
        table.add_row(name, *cells)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
