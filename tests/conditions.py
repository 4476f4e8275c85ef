"""Waiting for a condition instead of sleeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T], *, within_s: float = 10.0, every_s: float = 0.01, what: str = "") -> T:
    """Calls `probe` until it returns something true, and returns that.

    An exception of the probe counts as "not yet"; the last one is the cause of the failure.

    Raises:
        AssertionError: it did not happen within `within_s`.
    """
    deadline = time.monotonic() + within_s
    last: Exception | None = None
    while True:
        try:
            if value := probe():
                return value
        except Exception as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what or probe} did not happen within {within_s} s") from last
        time.sleep(every_s)


async def eventually_async(
    probe: Callable[[], Awaitable[T]], *, within_s: float = 10.0, every_s: float = 0.01, what: str = ""
) -> T:
    """`eventually` for a coroutine function."""
    deadline = time.monotonic() + within_s
    last: Exception | None = None
    while True:
        try:
            if value := await probe():
                return value
        except Exception as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what or probe} did not happen within {within_s} s") from last
        await asyncio.sleep(every_s)
