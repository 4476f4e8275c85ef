"""Load from processes of their own, so that a client's work is not the server's.

    python -m benchmarks.offered_load plan.json calls.json

The plan is a `Plan` as JSON; what became of each call is written as JSON, a list of `Call`. An open load sends at
random moments (Poisson) whatever comes back; a closed one keeps so many calls under way. Each call sends the next of
the plan's messages, so no two processes with messages of their own send the same one. Targets speak gRPC or HTTP.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple
from uuid import uuid4

import grpc
import uvloop

from benchmarks.http_door import HttpDoor
from braid.v1 import recommendation_pb2 as pb
from features.settings import ROOT

PROCESSES = 2
BACK_OFF_S = 0.1
"""A closed load's wait after a refusal."""
Protocol = Literal["grpc", "http"]
RECOMMEND = "/braid.v1.RecommendationService/Recommend"
OK, REFUSED = grpc.StatusCode.OK.name, grpc.StatusCode.RESOURCE_EXHAUSTED.name


class LoadError(Exception):
    """A load process failed; its message is on the terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is called: `method` is gRPC's full name, or the path for HTTP; messages are in base64."""

    address: str
    method: str
    messages: list[str]
    protocol: Protocol = "grpc"

    @staticmethod
    def of(address: str, method: str, messages: Sequence[bytes], *, protocol: Protocol = "grpc") -> Target:
        """From messages as they are sent."""
        encoded = [b64encode(it).decode() for it in messages]
        return Target(address=address, method=method, messages=encoded, protocol=protocol)

    @staticmethod
    def recommend(address: str, users: Sequence[str]) -> Target:
        """Recommend for users, one after the other."""
        requests = (pb.RecommendRequest(user_id=user, page_size=10, placement="benchmark") for user in users)
        return Target.of(address, RECOMMEND, [request.SerializeToString() for request in requests])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`rate` (calls/s) is for an open load, `concurrency` for a closed one; the other is 0."""

    target: Target
    seconds: float
    timeout_s: float
    rate: float = 0.0
    concurrency: int = 0


class Call(NamedTuple):
    """Seconds from the moment when it was due, the name of its status, and of its tier where it was answered; and that
    moment, in Unix time."""

    seconds: float
    code: str
    tier: str
    due_s: float


class Door:
    """One channel."""

    def __init__(self, plan: Plan) -> None:
        self._timeout_s = plan.timeout_s
        self._channel = grpc.aio.insecure_channel(plan.target.address)
        self._method = self._channel.unary_unary(
            plan.target.method, request_serializer=None, response_deserializer=None
        )

    async def call(self, message: bytes) -> tuple[str, bytes]:
        """Status and answer."""
        try:
            return OK, await self._method(message, timeout=self._timeout_s, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            return error.code().name, b""

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close(None)


class Load:
    """Calls of one plan."""

    def __init__(self, plan: Plan, door: Door | HttpDoor) -> None:
        self.calls: list[Call] = []
        self._plan = plan
        self._door = door
        self._messages: Iterator[bytes] = itertools.cycle([b64decode(message) for message in plan.target.messages])

    async def open(self) -> None:
        """Sends at the plan's rate."""
        draw, under_way = random.Random(self._plan.target.messages[0]), set[asyncio.Task[str]]()
        due_s = time.perf_counter()
        end_s = due_s + self._plan.seconds
        while (due_s := due_s + draw.expovariate(self._plan.rate)) < end_s:
            if (wait_s := due_s - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            call = asyncio.ensure_future(self._call(due_s))
            under_way.add(call)
            call.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    async def closed(self) -> None:
        """Keeps the plan's number of calls under way."""
        end_s = time.perf_counter() + self._plan.seconds

        async def one_after_the_other() -> None:
            while (now_s := time.perf_counter()) < end_s:
                if await self._call(now_s) == REFUSED:
                    await asyncio.sleep(BACK_OFF_S)

        await asyncio.gather(*(one_after_the_other() for _ in range(self._plan.concurrency)))

    async def _call(self, due_s: float) -> str:
        code, answer = await self._door.call(next(self._messages))
        seconds, ended_s, tier = time.perf_counter() - due_s, time.time(), ""
        if code == OK and self._plan.target.method == RECOMMEND:
            tier = pb.Tier.Name(pb.RecommendResponse.FromString(answer).tier)
        self.calls.append(Call(seconds, code, tier, ended_s - seconds))
        return code


class LoadProcess:
    """A plan in a process of its own, under way from its making; its files go into a folder.

    Use it in a `with` statement: at its end the load ends, whether it is through or not.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        name = uuid4().hex
        asked, self._written = (folder / f"load-{name}-{kind}.json" for kind in ("plan", "calls"))
        asked.write_text(json.dumps(asdict(plan)))
        command = [sys.executable, "-m", "benchmarks.offered_load", str(asked), str(self._written)]
        self._process = subprocess.Popen(command, cwd=ROOT)
        self.began_s = time.time()

    def __enter__(self) -> LoadProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        """The exit code, once it has ended."""
        return self._process.wait()

    def calls(self) -> list[Call]:
        """Every call, once it has ended.

        Raises:
            LoadError: it failed.
        """
        if self.wait():
            raise LoadError("a load process ended; its message is above")
        return [Call(*call) for call in json.loads(self._written.read_text())]


def put_load(
    target: Target, *, seconds: float, timeout_s: float, rate: float = 0.0, concurrency: int = 0
) -> list[Call]:
    """The calls of `PROCESSES` processes at once, or of one for each call under way where those are fewer.

    Raises:
        LoadError: one of them failed.
    """
    processes = min(PROCESSES, concurrency) or PROCESSES
    with TemporaryDirectory() as folder, ExitStack() as loads:
        begun = [
            loads.enter_context(
                LoadProcess(
                    Plan(
                        target=Target(**asdict(target) | {"messages": target.messages[number::processes]}),
                        seconds=seconds,
                        timeout_s=timeout_s,
                        rate=rate / processes,
                        concurrency=concurrency // processes + (number < concurrency % processes),
                    ),
                    Path(folder),
                )
            )
            for number in range(processes)
        ]
        for process in begun:
            process.wait()
        return [call for process in begun for call in process.calls()]


async def run(plan: Plan) -> list[Call]:
    """Every call of a plan."""
    target = plan.target
    door = Door(plan) if target.protocol == "grpc" else HttpDoor(target.address, target.method, plan.timeout_s)
    await door.call(b64decode(plan.target.messages[0]))  # connects
    load = Load(plan, door)
    await (load.open() if plan.rate else load.closed())
    await door.close()
    return load.calls


if __name__ == "__main__":
    plan_file, calls_file = map(Path, sys.argv[1:])
    read = json.loads(plan_file.read_text())
    plan = Plan(**read | {"target": Target(**read["target"])})
    calls_file.write_text(json.dumps(uvloop.run(run(plan))))
