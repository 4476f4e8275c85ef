"""The peers by name, and one of them running: its environment made, its server started, the first answer there.

The environments lie in .venv-peers/<name> in the clone. They see ours too, torch and Feast among it, behind what
<name>.txt beside this file pins, so the work is the same to the byte and a peer takes 30 to 350 MB and a minute, once.
Torch has one thread for a call of the model, as in Triton: OMP_NUM_THREADS is 1 for all.
"""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.offered_load import Target
from benchmarks.peer_environment import PeerError, peer_python
from deploy.setup import PROTO, ROOT
from features.settings import Settings
from tests.conditions import eventually
from tests.processes import environment, free_ports, running, tail

ENVIRONMENTS = ROOT / ".venv-peers"
PATH = "/recommend"
START_S = 180.0
MODULES = "benchmarks.serving.peers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A way to serve: `command` is what follows the interpreter, from a port; `message` asks for a user."""

    requirements: str
    command: Callable[[int], Sequence[str]]
    message: Callable[[str], object]
    variables: dict[str, str] = field(default_factory=dict)


def _uvicorn(port: int) -> Sequence[str]:
    flags = ("--loop", "uvloop", "--http", "httptools", "--no-access-log")
    return ("-m", "uvicorn", f"{MODULES}.fastapi_app:app", "--host", "127.0.0.1", "--port", str(port), *flags)


def _bentoml(port: int) -> Sequence[str]:
    service = f"{MODULES}.bentoml_service:Recommendations"
    return ("-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port))


PEERS = {
    "FastAPI": Peer(requirements="fastapi.txt", command=_uvicorn, message=lambda user: {"user_id": user}),
    "BentoML": Peer(
        requirements="bentoml.txt",
        command=_bentoml,
        message=lambda user: {"user_ids": [user]},
        variables={"BENTOML_DO_NOT_TRACK": "True"},
    ),
    "Ray Serve": Peer(
        requirements="ray.txt",
        command=lambda port: ("-m", f"{MODULES}.ray_deployment", str(port)),
        message=lambda user: {"user_id": user},
        variables={
            "RAY_SERVE_ENABLE_HA_PROXY": "1",  # its guide to high throughput asks for both
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        },
    ),
}


@dataclass(frozen=True, slots=True)
class RunningPeer:
    """What to call, and the process whose tree does the work."""

    target: Target
    process: psutil.Process


@contextmanager
def running_peer(name: str, settings: Settings, users: Sequence[str]) -> Iterator[RunningPeer]:
    """A peer on the shop's live release and store, asked for the users.

    Raises:
        PeerError: its environment cannot be made, or it does not start.
    """
    peer, port = PEERS[name], free_ports()
    requirements = Path(__file__).with_name(peer.requirements)
    python = peer_python(ENVIRONMENTS / requirements.stem, requirements, beside_ours=True)
    log = settings.logs / f"peer-{requirements.stem}.log"
    messages = [json.dumps(peer.message(user)).encode() for user in users]
    env = environment(settings, PYTHONPATH=f"{ROOT}:{PROTO}", **peer.variables)
    command = [str(python), *peer.command(port)]
    with running(command, log, env=env, stop_signal=signal.SIGINT) as process:
        try:
            eventually(lambda: process.poll() is not None or _answers(port, messages[0]), within_s=START_S, every_s=0.2)
        except AssertionError:
            raise PeerError(f"{name} gave no answer within {START_S:.0f} s; {log} says why") from None
        if process.poll() is not None:
            remedy = f"where a module is missing, remove {ENVIRONMENTS}: the next run makes it anew"
            raise PeerError(f"{name} ended with {process.returncode}: {tail(log, 1)} ({log}); {remedy}")
        target = Target.of(f"127.0.0.1:{port}", PATH, messages, protocol="http")
        yield RunningPeer(target, psutil.Process(process.pid))


def _answers(port: int, message: bytes) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", PATH, message, {"content-type": "application/json"})
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
