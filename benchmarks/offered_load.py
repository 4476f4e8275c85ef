"""Load on Recommend from a process of its own, so that a client's work is not the server's.

    python -m benchmarks.offered_load plan.json calls.json

The plan is a `Plan` as JSON; what became of each call is written as JSON, a list of `Call`. An open load sends at
random moments (Poisson) whatever comes back; a closed one keeps so many calls under way. Each call is for the next user
of the plan's, so no two processes with users of their own ask for the same one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import grpc
import uvloop

from braid.v1 import recommendation_pb2 as pb
from braid.v1 import recommendation_pb2_grpc

BACK_OFF_S = 0.1
"""A closed load's wait after a refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`rate` (calls/s) is for an open load, `concurrency` for a closed one; the other is 0."""

    address: str
    users: list[str]
    seconds: float
    timeout_s: float
    rate: float = 0.0
    concurrency: int = 0


class Call(NamedTuple):
    """Seconds from the moment when it was due, the name of its status, and of its tier where it was answered."""

    seconds: float
    code: str
    tier: str


class Load:
    """Calls of one plan."""

    def __init__(self, plan: Plan, stub: recommendation_pb2_grpc.RecommendationServiceStub) -> None:
        self.calls: list[Call] = []
        self._plan = plan
        self._stub = stub
        self._users: Iterator[str] = itertools.cycle(plan.users)

    async def open(self) -> None:
        """Sends at the plan's rate."""
        draw, under_way = random.Random(self._plan.users[0]), set[asyncio.Task[str]]()
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
                if await self._call(now_s) == grpc.StatusCode.RESOURCE_EXHAUSTED.name:
                    await asyncio.sleep(BACK_OFF_S)

        await asyncio.gather(*(one_after_the_other() for _ in range(self._plan.concurrency)))

    async def _call(self, due_s: float) -> str:
        request = pb.RecommendRequest(user_id=next(self._users), page_size=10, placement="benchmark")
        code, tier = grpc.StatusCode.OK.name, ""
        try:
            answer = await self._stub.Recommend(request, timeout=self._plan.timeout_s)
            tier = pb.Tier.Name(answer.tier)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
        self.calls.append(Call(time.perf_counter() - due_s, code, tier))
        return code


async def run(plan: Plan) -> list[Call]:
    """Every call of a plan."""
    async with grpc.aio.insecure_channel(plan.address) as channel:
        await channel.channel_ready()
        load = Load(plan, recommendation_pb2_grpc.RecommendationServiceStub(channel))
        await (load.open() if plan.rate else load.closed())
        return load.calls


if __name__ == "__main__":
    plan_file, calls_file = map(Path, sys.argv[1:])
    calls_file.write_text(json.dumps(uvloop.run(run(Plan(**json.loads(plan_file.read_text()))))))
