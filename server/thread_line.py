"""Threads for what would block the event loop, and before them a line that keeps nothing which nobody waits for.

The line of an executor keeps what was given up until a thread comes to it: behind a database that hangs it would grow
with every call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from server.infer.coalescer import Coalescer

T = TypeVar("T")


class ThreadLine:
    """So many threads, first come, first served.

    Args:
        name: of the threads, and of the line in the metrics.
    """

    def __init__(self, threads: int, *, name: str) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._line: Coalescer[Callable[[], Any], Any] = Coalescer(self._run, line=name, max_batch=1, in_flight=threads)

    async def run(self, work: Callable[[], T], timeout_s: float) -> T:
        """What the work returns; raises what it raises.

        Raises:
            asyncio.TimeoutError: it took longer than `timeout_s`; what was not begun is not done any more.
        """
        done: T = await self._line.submit(work, timeout_s)
        return done

    def close(self) -> None:
        """Ends the threads after the work under way."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _run(self, works: Sequence[Callable[[], Any]]) -> list[Any]:
        (work,) = works
        return [await asyncio.get_running_loop().run_in_executor(self._threads, work)]
