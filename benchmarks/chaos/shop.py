"""The processes that are to suffer: two gateways on one address, and everything below them, each a part."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import redis

from benchmarks.random_release import random_model
from deploy.embedded.triton import clear_leftovers, shared_memory_prefix
from features.settings import Settings
from tests.conditions import eventually
from tests.parts import Part, stoppable
from tests.postgres import answers, new_cluster
from tests.processes import environment, free_ports, required_binary
from tests.server.shop import fill, items
from training.publish import publish

START_S = 120.0
SERVES = '"message": "serving"'


@dataclass(frozen=True, slots=True)
class Shop:
    """By name: gateway-1, gateway-2, triton, stream, redis, postgresql."""

    settings: Settings
    parts: dict[str, Part]

    @property
    def gateways(self) -> list[Part]:
        """Both."""
        return [part for name, part in self.parts.items() if name.startswith("gateway")]

    def revive(self) -> None:
        """Starts what has ended, as a supervisor would."""
        for part in self.parts.values():
            part.revive()

    def both_serve(self) -> bool:
        """Whether each gateway has said that it serves since it was started last."""
        return all(part.said(SERVES) for part in self.gateways)

    def shared_memory(self) -> int:
        """Regions in /dev/shm that are this shop's and that nobody has any more.

        Triton itself keeps the region of a model's process that was killed, a MiB, until it ends.
        """
        used = ""
        for process in self.parts["triton"].family():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                used += Path(f"/proc/{process.pid}/maps").read_text()
        found = Path("/dev/shm").glob(f"{shared_memory_prefix(self.settings)}*")
        return sum(1 for region in found if region.name not in used)


@contextmanager
def suffering_shop() -> Iterator[Shop]:
    """A shop with a release, on a PostgreSQL and a Redis of its own, serving."""
    with ExitStack() as parts:
        folder = Path(parts.enter_context(TemporaryDirectory(prefix="braid-chaos-")))
        folder.chmod(0o755)
        found: dict[str, Part] = {}

        def begin(name: str, command: list[str], env: dict[str, str] | None = None) -> None:
            found[name] = parts.enter_context(stoppable(Part(parts, command, folder / f"{name}.log", env)))

        (folder / "postgresql").mkdir()
        cluster = new_cluster(folder / "postgresql")
        in_folder = ["-c", "dynamic_shared_memory_type=mmap"]  # killed, it leaves nothing in /dev/shm
        begin("postgresql", [*cluster.command, *in_folder])
        eventually(lambda: answers(cluster.url), within_s=START_S, what="PostgreSQL's answer")
        port = free_ports(6)  # once PostgreSQL has the one that it was given
        redis_port = str(port + 4)
        begin("redis", [required_binary("redis-server", "redis-server"), "--bind", "127.0.0.1", "--port", redis_port,
                        "--dir", str(folder), "--appendonly", "yes", "--save", ""])  # fmt: skip
        with redis.Redis(port=int(redis_port)) as client:
            eventually(client.ping, what="Redis' first answer")
        settings = Settings(
            home=folder / "home",
            model_repository=folder / "home" / "model_repository",
            gateway_address=f"127.0.0.1:{port}",
            triton_address=f"127.0.0.1:{port + 2}",
            database_url=cluster.url,
            online_store="redis",
            redis_url=f"127.0.0.1:{redis_port}",
        )
        fill(settings)
        publish(settings, random_model(items()), why="chaos", note=lambda _: None, although_worse="random weights")
        parts.callback(clear_leftovers, settings)
        begin("triton", [sys.executable, "-m", "deploy.embedded.triton"], environment(settings))
        begin("stream", [sys.executable, "-m", "features", "stream"], environment(settings))
        for number in (1, 2):
            own = environment(settings, BRAID_GATEWAY_SHARE_PORT="true")
            begin(f"gateway-{number}", [sys.executable, "-m", "server"], own)
        shop = Shop(settings, found)
        eventually(shop.both_serve, within_s=START_S, what="both gateways' serving")
        yield shop
