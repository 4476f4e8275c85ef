"""Requests that arrive while a call is under way go together in the next one; an idle pipe makes nobody wait.

A call of sixteen costs little more than a call of one. So where others are being worked on that may come here too, a
free pipe waits until half of them are here, at most for as long as two of its calls take; who is alone never waits.
Half, since a request passes two such pipes one after the other, and both are to be at work. Of a few it waits for all,
but no longer than one call takes.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from opentelemetry.trace import Span

from server.metrics import BATCH_SECONDS, BATCH_SIZE, WAIT_SECONDS
from server.tracing import batch_span, current_span

MOST_PATIENCE_S = 0.02
LEAST_PATIENCE_S = 0.001
"""The event loop's timers know no less."""
HURRY_S = 4 * MOST_PATIENCE_S
"""Who has less time than this does not wait for others."""
FEW = 4
"""Under way, of whom all are waited for."""
SMOOTHING = 0.1

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Coalescer(Generic[Request, Answer]):
    """One pipe to something with a fixed cost per call.

    Args:
        run: answers a batch, in its order; its exception goes to every request of the batch.
        line: its name in the metrics.
        max_batch: requests in one call.
        in_flight: calls under way at once.
        under_way: how many requests are being worked on, here and elsewhere; 0 where nobody is waited for.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Request]], Awaitable[Sequence[Answer]]],
        *,
        line: str,
        max_batch: int,
        in_flight: int = 1,
        under_way: Callable[[], int] = lambda: 0,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._free = in_flight
        self._line = line
        self._under_way = under_way
        self._usual_s = 0.0
        self._patience: asyncio.TimerHandle | None = None
        self._waiting: OrderedDict[asyncio.Future[Answer], tuple[Request, float, Span | None]] = OrderedDict()
        self._calls: set[asyncio.Task[None]] = set()
        self._wait_seconds = WAIT_SECONDS.labels(line)
        self._batch_seconds = BATCH_SECONDS.labels(line)
        self._batch_size = BATCH_SIZE.labels(line)

    async def submit(self, request: Request, timeout_s: float) -> Answer:
        """The answer to one request.

        Raises:
            asyncio.TimeoutError: it took longer than `timeout_s`; a request not yet sent is not sent any more.
        """
        if timeout_s <= 0:
            raise asyncio.TimeoutError
        answer = self.send(request)
        if timeout_s < HURRY_S:
            self._send()
        expiry = asyncio.get_running_loop().call_later(timeout_s, _expire, answer)  # wait_for costs a task
        try:
            return await answer
        finally:
            expiry.cancel()

    def send(self, request: Request) -> asyncio.Future[Answer]:
        """Puts a request in line; once its answer is cancelled, a request not yet sent is not sent any more."""
        return self.send_all([request])[0]

    def send_all(self, requests: Sequence[Request]) -> list[asyncio.Future[Answer]]:
        """`send` for several: as far as they fit, they go together."""
        loop = asyncio.get_running_loop()
        since_s, span = time.perf_counter(), current_span()
        answers: list[asyncio.Future[Answer]] = [loop.create_future() for _ in requests]
        for answer, request in zip(answers, requests, strict=True):
            self._waiting[answer] = request, since_s, span
            answer.add_done_callback(self._forget)
        self._start()
        return answers

    def _forget(self, answer: asyncio.Future[Answer]) -> None:
        self._waiting.pop(answer, None)

    def _start(self) -> None:
        """Begins a call, or waits for those who may come."""
        here = len(self._waiting)
        if not here or not self._free:
            return
        under_way = self._under_way()
        enough, calls = (under_way, 1) if under_way <= FEW else (under_way / 2, 2)
        if here < min(self._max_batch, enough):
            patience_s = min(calls * self._usual_s, MOST_PATIENCE_S)
            if patience_s >= LEAST_PATIENCE_S:
                if self._patience is None:
                    self._patience = asyncio.get_running_loop().call_later(patience_s, self._send)
                return
        self._send()

    def _send(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        while self._free and self._waiting:
            now_s = time.perf_counter()
            batch: list[tuple[Request, asyncio.Future[Answer]]] = []
            spans: list[Span | None] = []
            while self._waiting and len(batch) < self._max_batch:
                answer, (request, since_s, span) = self._waiting.popitem(last=False)
                if not answer.done():  # its caller has given up
                    self._wait_seconds.observe(now_s - since_s)
                    batch.append((request, answer))
                    spans.append(span)
            if not batch:
                return
            self._batch_size.observe(len(batch))
            self._free -= 1
            call = asyncio.ensure_future(self._call(batch, spans))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _call(self, batch: list[tuple[Request, asyncio.Future[Answer]]], spans: list[Span | None]) -> None:
        began_s = time.perf_counter()
        try:
            with batch_span(self._line, spans):
                answers = await self._run([request for request, _ in batch])
            assert len(answers) == len(batch)
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        finally:
            took_s = time.perf_counter() - began_s
            self._batch_seconds.observe(took_s)
            self._usual_s += SMOOTHING * (took_s - self._usual_s)
            self._free += 1
            self._start()
        for number, ((_, future), answer) in enumerate(zip(batch, answers, strict=True)):
            if number:
                await asyncio.sleep(0)  # grpc.aio takes in one call a pass of the loop: no pass may be a whole batch's
            if not future.done():
                future.set_result(answer)


def _expire(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(asyncio.TimeoutError())
