"""The stages of a call that recommends, each timed where it happens, and a span where the call is traced.

with Stage(SELECT):
    ...
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final

from opentelemetry.trace import Span

from server.metrics import STAGE_SECONDS
from server.tracing import begin_span

DECODE: Final = "decode"
FEATURES: Final = "features"
INFERENCE: Final = "inference"
SELECT: Final = "select"
ENCODE: Final = "encode"

_SECONDS = {stage: STAGE_SECONDS.labels(stage) for stage in (DECODE, FEATURES, INFERENCE, SELECT, ENCODE)}


class Stage:
    """One stage of one call, from `with` to its end, however it ends."""

    __slots__ = ("_began_s", "_name", "_span")

    def __init__(self, name: str) -> None:
        self._name = name
        self._began_s = 0.0
        self._span: Span | None = None

    def __enter__(self) -> None:
        self._span = begin_span(self._name)
        self._began_s = time.perf_counter()

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        _SECONDS[self._name].observe(time.perf_counter() - self._began_s)
        if self._span is not None:
            self._span.end()
