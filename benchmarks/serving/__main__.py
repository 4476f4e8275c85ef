"""How fast the gateway is, beside what it is made of, in one run.

    python -m benchmarks.serving [--seconds 5] [--no-peers] [--flame FILE]

The stack is started where it does not run; a gateway of its own, with validation, recording and metrics on, is measured
on its shop. At concurrency 1 the kinds of call take turns; then closed loads of rising concurrency, and open ones at
shares of what the gateway takes, come from two processes. Every request is for another user, no answer is kept. CPU
is of the whole gateway process, and of Triton with its stubs, for each answer; on a machine that is busy with other
things it is the figure to trust. Tables go to the terminal, as Markdown and as JSON to benchmarks/results/.

Then peers do the same work with the same module and store, `benchmarks.serving.peers` says how: one after the other is
started, takes its closed loads by turns with the gateway, and is stopped. Their environments are made the first time,
which takes some minutes; `--no-peers` leaves them out, and `make bench` does not come here at all.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import grpc
import psutil
import typer
import uvloop

from benchmarks import record
from benchmarks.latency import (
    BenchmarkError,
    Call,
    Latency,
    endless_requests,
    ensure_up,
    take_turns,
)
from benchmarks.live_shop import gateway_on
from benchmarks.offered_load import LoadError, Target, put_load
from benchmarks.peer_environment import PeerError
from benchmarks.serving import featureless, stages
from benchmarks.serving.peers.servers import PEERS, running_peer
from benchmarks.serving.report import BesidePeer, Load, Report
from benchmarks.serving.targets import (
    BARE_GATEWAY,
    FEAST,
    GATEWAY,
    Targets,
    bare_feast_read,
    cpu_seconds,
    process_of,
    targets,
)
from braid.v1 import recommendation_pb2_grpc
from deploy.embedded import stack
from features.settings import Settings, load_settings
from features.terminal import console
from tests.processes import free_ports

USERS = 4_000
CONCURRENCIES = (1, 4, 16, 64, 256)
SHARES = (0.5, 0.8)
"""Of the gateway's throughput at saturation, for the open loads."""
DEADLINE_S = 2.0
STAGED_CALLS = 500


def main(
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of each load.")] = 5.0,
    concurrency: Annotated[
        list[int] | None, typer.Option(min=1, help=f"Of a closed load; {CONCURRENCIES} where not given.")
    ] = None,
    peers: Annotated[bool, typer.Option(help="Other servers beside it.")] = True,
    flame: Annotated[Path | None, typer.Option(help="Flame graph of the gateway at concurrency 16, by py-spy.")] = None,
) -> None:
    """Measures and shows."""
    settings = load_settings()
    if flame and not shutil.which("py-spy"):
        sys.exit("--flame needs py-spy: .venv/bin/pip install py-spy")
    try:
        ensure_up(settings)
        requests = endless_requests(settings)
        users = list(dict.fromkeys(next(requests).user_id for _ in range(USERS)))
        with (
            _gateway(settings) as own,
            _gateway(settings, module=featureless.__name__) as other,
            targets(own, other, users) as found,
        ):
            report = measure(own, found, seconds, concurrency or CONCURRENCIES)
            if peers:
                own_load = found.loads[GATEWAY]
                report.peers = list(beside_peers(own, own_load, users, seconds, concurrency or CONCURRENCIES))
            if flame:
                draw(own, found.loads[GATEWAY], seconds, flame)
        report.stages = staged(settings, users)
    except (BenchmarkError, LoadError, stack.StackError) as error:
        sys.exit(str(error))
    tables = report.tables()
    for table in tables:
        console.print(table.rich())
    path = record.write("serving", asdict(report))
    path.with_suffix(".md").write_text("\n".join(table.markdown() for table in tables))
    console.print(str(path))


def measure(settings: Settings, found: Targets, seconds: float, concurrencies: Sequence[int]) -> Report:
    """Everything but the stages."""
    put_load(found.loads[GATEWAY], seconds=seconds, timeout_s=DEADLINE_S, concurrency=16)  # warm
    report = Report(
        request_bytes=found.request_bytes,
        response_bytes=found.response_bytes,
        alone={name: asdict(it) for name, it in uvloop.run(in_turns(settings, found, seconds)).items()},
    )
    for concurrency in concurrencies:
        for name, target in found.loads.items():
            server = process_of(target.address if name == BARE_GATEWAY else settings.gateway_address)
            report.closed.append(under_load(settings, server, name, target, seconds, concurrency=concurrency))
    for share in SHARES:
        rate = share * report.throughput(GATEWAY)
        server = process_of(settings.gateway_address)
        report.open.append(under_load(settings, server, GATEWAY, found.loads[GATEWAY], seconds, rate=rate))
    return report


async def in_turns(settings: Settings, found: Targets, seconds: float) -> dict[str, Latency]:
    """Each kind of call alone, as many as take about `seconds` each."""
    with bare_feast_read(settings, found) as feast_read:
        async with AsyncExitStack() as channels:
            kinds: dict[str, Call] = {}
            for name, target in found.loads.items():
                channel = await channels.enter_async_context(grpc.aio.insecure_channel(target.address))
                kinds[name] = sender(channel, target)
            kinds[FEAST] = feast_read
            measured = await take_turns(kinds, max(10, int(100 * seconds)))
    return {name: Latency.of(times) for name, times in measured.items()}


def beside_peers(
    settings: Settings, gateway: Target, users: list[str], seconds: float, concurrencies: Sequence[int]
) -> Iterator[BesidePeer]:
    """Each peer in its turn, alone with the gateway: what else the machine does falls on both."""
    own = process_of(settings.gateway_address)
    for name in PEERS:
        try:
            with running_peer(name, settings, users) as peer:
                put_load(peer.target, seconds=seconds, timeout_s=DEADLINE_S, concurrency=16)  # warm
                loads = [
                    under_load(settings, server, who, target, seconds, concurrency=concurrency)
                    for concurrency in concurrencies
                    for who, target, server in ((GATEWAY, gateway, own), (name, peer.target, peer.process))
                ]
            yield BesidePeer(peer=name, loads=loads)
        except (PeerError, psutil.NoSuchProcess) as error:
            console.print(f"{name} is left out: {error}")
            yield BesidePeer(peer=name, error=str(error))


def under_load(
    settings: Settings,
    server: psutil.Process,
    name: str,
    target: Target,
    seconds: float,
    *,
    rate: float = 0.0,
    concurrency: int = 0,
) -> Load:
    """One load, and what it cost the server with all below it, and Triton."""
    parts = [server, process_of(settings.triton_address)]
    before = [cpu_seconds(part) for part in parts]
    calls = put_load(target, seconds=seconds, timeout_s=DEADLINE_S, rate=rate, concurrency=concurrency)
    spent = [cpu_seconds(part) - then for part, then in zip(parts, before, strict=True)]
    return Load.of(name, calls, seconds, rate=rate, concurrency=concurrency, cpu_s=spent)


def staged(settings: Settings, users: list[str]) -> dict[str, tuple[float, float]]:
    """Microseconds of each stage of a call that is alone: wall, and CPU of the gateway."""
    with _gateway(settings, module=stages.__name__) as own, grpc.insecure_channel(own.gateway_address) as channel:
        recommend = recommendation_pb2_grpc.RecommendationServiceStub(channel).Recommend
        requests = endless_requests(own)
        for _ in range(STAGED_CALLS):
            recommend(next(requests), timeout=DEADLINE_S)
    read: dict[str, tuple[float, float]] = json.loads((settings.logs / stages.STAGES_FILE).read_text())
    return read


def sender(channel: grpc.aio.Channel, target: Target) -> Call:
    """Sends the next of a target's messages."""
    method = channel.unary_unary(target.method, request_serializer=None, response_deserializer=None)
    messages = itertools.cycle([b64decode(message) for message in target.messages])
    return lambda: method(next(messages), timeout=DEADLINE_S, wait_for_ready=True)


def draw(settings: Settings, target: Target, seconds: float, file: Path) -> None:
    """A flame graph of the gateway under load."""
    pid = process_of(settings.gateway_address).pid
    command = ["py-spy", "record", "--output", str(file), "--pid", str(pid), "--duration", str(max(1, int(seconds)))]
    with subprocess.Popen([*command, "--rate", "200", "--threads"], stdout=subprocess.DEVNULL) as drawing:
        put_load(target, seconds=seconds + 2, timeout_s=DEADLINE_S, concurrency=16)
    if drawing.returncode:
        raise BenchmarkError(f"py-spy ended with {drawing.returncode}; it may need to run as root")
    console.print(str(file))


@contextmanager
def _gateway(settings: Settings, module: str = "server") -> Iterator[Settings]:
    """A gateway of its own on the shop; yields its settings."""
    port = free_ports(2)
    own = settings.model_copy(update={"gateway_address": f"127.0.0.1:{port}"})
    with gateway_on(own, log="serving", module=module, metrics_address=f"127.0.0.1:{port + 1}"):
        yield own


if __name__ == "__main__":
    typer.run(main)
