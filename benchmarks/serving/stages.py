"""A gateway that times the stages of Recommend, for one call at a time.

    python -m benchmarks.serving.stages

It is `python -m server` with marks between the stages. Between two marks, wall time and the CPU time of the whole
process (every thread) go to the stage under way; while nobody else calls, all of it is that call's. On SIGTERM it
writes the means to `STAGES_FILE` in the shop's logs.

decode      from the message's bytes to a checked query
features    the read of the feature store
wait        from handing in the tensors to the call of Triton
inference   the call of Triton, answers read
select      what may be shown, the tensors, and the page from the model's answer
encode      the answer recorded, and as the message's bytes
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import grpc

import server.__main__
from features.settings import load_settings
from server.infer.model import Model
from server.infer.triton import Triton
from server.services import recommendation
from server.shop import Shop

STAGES = ("decode", "features", "wait", "inference", "select", "encode")
OUTSIDE = "outside"
"""gRPC, the recorder and what else goes on between calls."""
STAGES_FILE = "stages.json"


@dataclass(slots=True)
class Stopwatch:
    """Nanoseconds of each stage."""

    wall_ns: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*STAGES, OUTSIDE), 0))
    cpu_ns: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*STAGES, OUTSIDE), 0))
    calls: int = 0
    _stage: str = OUTSIDE
    _wall_ns: int = field(default_factory=time.perf_counter_ns)
    _cpu_ns: int = field(default_factory=time.process_time_ns)
    _begun: bool = False

    def enter(self, stage: str) -> None:
        """From here on time is that stage's; what was before the first call is nobody's."""
        wall_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
        if self._begun:
            self.wall_ns[self._stage] += wall_ns - self._wall_ns
            self.cpu_ns[self._stage] += cpu_ns - self._cpu_ns
        self._begun = True
        self._stage, self._wall_ns, self._cpu_ns = stage, wall_ns, cpu_ns

    def write(self, path: Path) -> None:
        """Means in microseconds, wall then CPU."""
        calls = max(1, self.calls)
        means = {stage: (self.wall_ns[stage] / calls / 1e3, self.cpu_ns[stage] / calls / 1e3) for stage in self.wall_ns}
        path.write_text(json.dumps(means))


def mark(watch: Stopwatch) -> None:
    """Puts the marks into this process's gateway."""

    def within(call: Callable[..., Awaitable[Any]], before: str, after: str) -> Callable[..., Awaitable[Any]]:
        @wraps(call)
        async def marked(*arguments: Any, **named: Any) -> Any:
            watch.enter(before)
            try:
                return await call(*arguments, **named)
            finally:
                watch.enter(after)

        return marked

    def handler(method: Any, request_deserializer: Any, response_serializer: Any) -> Any:
        if method.__name__ != "Recommend":
            return unmarked(method, request_deserializer, response_serializer)

        def decode(message: bytes) -> Any:
            watch.enter("decode")
            return request_deserializer(message)

        def encode(answer: Any) -> bytes:
            message: bytes = response_serializer(answer)
            watch.enter(OUTSIDE)
            watch.calls += 1
            return message

        return unmarked(method, decode, encode)

    unmarked = grpc.unary_unary_rpc_method_handler
    setattr(grpc, unmarked.__name__, handler)
    for owner, name, before, after in (
        (Shop, "shopper", "features", "select"),
        (Model, "fuse", "wait", "select"),
        (Triton, "_infer", "inference", "inference"),
        (recommendation, "recommend", "decode", "encode"),
    ):
        setattr(owner, name, within(getattr(owner, name), before, after))


if __name__ == "__main__":
    watch = Stopwatch()
    mark(watch)
    server.__main__.app(standalone_mode=False)
    watch.write(load_settings().logs / STAGES_FILE)
