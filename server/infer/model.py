"""Step two: one call to the model, within the request's time, and none where Triton is known to be gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from server.deadline import Deadline, patient
from server.errors import ModelUnavailable
from server.hydrate.fusion_request import FusionRequest
from server.infer.breaker import Breakers
from server.infer.triton import FusionAnswer, Triton
from server.stages import INFERENCE, Stage

T = TypeVar("T")

SHARE = 0.9
"""Of what is left; where the model does not answer, there is time for the lower tier."""


class Model:
    """Each release's two models behind one circuit breaker."""

    def __init__(self, triton: Triton, breakers: Breakers, *, budget_s: float) -> None:
        self._triton = triton
        self._breakers = breakers
        self._budget_s = budget_s

    async def fuse(self, *requests: FusionRequest, deadline: Deadline, dispensable: bool = False) -> list[FusionAnswer]:
        """An answer for each request, in order; all are of one release.

        Args:
            dispensable: the caller asks for much and can do without: that it takes too long is not held against Triton.

        Raises:
            ModelUnavailable: at least one has none.
        """
        left_s = deadline.left_s(self._budget_s, SHARE)
        blames = patient(left_s, self._budget_s) and not dispensable
        release = requests[0].release
        if len(requests) == 1:
            return [await self._answer(release, lambda: self._triton.fuse(requests[0], left_s), blames, deadline)]
        return await self._answer(release, lambda: self._triton.fuse_all(requests, left_s), blames, deadline)

    async def item_vectors(
        self, release: int, content: npt.NDArray[np.int32], deadline: Deadline
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Vectors float32 (n, D) and biases float32 (n,) of content codes int32 (n, CONTENT_TOKENS).

        Raises:
            ModelUnavailable: there are none.
        """
        left_s = deadline.left_s(self._budget_s, SHARE)

        async def vectors() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
            try:
                return await asyncio.wait_for(self._triton.item_vectors(release, content), left_s)
            except asyncio.TimeoutError:
                raise ModelUnavailable(f"no item vectors within {left_s:.3f} s", reason="slow") from None

        return await self._answer(release, vectors, patient(left_s, self._budget_s), deadline)

    async def _answer(self, release: int, ask: Callable[[], Awaitable[T]], blames: bool, deadline: Deadline) -> T:
        """What `ask` gets; the breaker is told how it went, and of slowness where the caller `blames` it."""
        breaker = self._breakers.of(release)
        if not breaker.allows():
            raise ModelUnavailable("Triton does not answer", reason="gone")
        asked_s = time.monotonic()
        try:
            with Stage(INFERENCE):
                found = await ask()
        except ModelUnavailable as error:
            deadline.in_vain_s += time.monotonic() - asked_s
            if error.reason != "slow" or blames:
                breaker.failed(str(error))
            raise
        breaker.succeeded()
        return found
