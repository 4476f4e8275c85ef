"""Requests that arrive while a call is under way go together in the next one; an idle pipe makes nobody wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Coalescer(Generic[Request, Answer]):
    """One pipe to something with a fixed cost per call.

    Args:
        run: answers a batch, in its order; its exception goes to every request of the batch.
        max_batch: requests in one call.
        in_flight: calls under way at once.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Request]], Awaitable[Sequence[Answer]]],
        *,
        max_batch: int,
        in_flight: int = 1,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._free = in_flight
        self._waiting: deque[tuple[Request, asyncio.Future[Answer]]] = deque()
        self._calls: set[asyncio.Task[None]] = set()

    async def submit(self, request: Request, timeout_s: float) -> Answer:
        """The answer to one request.

        Raises:
            asyncio.TimeoutError: it took longer than `timeout_s`; a request not yet sent is not sent any more.
        """
        if timeout_s <= 0:
            raise asyncio.TimeoutError
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        self._start()
        return await asyncio.wait_for(answer, timeout_s)

    def _start(self) -> None:
        while self._free and self._waiting:
            batch: list[tuple[Request, asyncio.Future[Answer]]] = []
            while self._waiting and len(batch) < self._max_batch:
                entry = self._waiting.popleft()
                if not entry[1].done():  # its caller has given up
                    batch.append(entry)
            if not batch:
                return
            self._free -= 1
            call = asyncio.ensure_future(self._call(batch))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _call(self, batch: list[tuple[Request, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._run([request for request, _ in batch])
            assert len(answers) == len(batch)
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        finally:
            self._free += 1
            self._start()
