"""Step two: one call to the model, within the request's time, and none where Triton is known to be gone."""

from __future__ import annotations

from server.breaker import Breaker
from server.deadline import Deadline
from server.errors import ModelUnavailable
from server.triton import FusionAnswer, FusionRequest, Triton


class Model:
    """The fusion model behind its circuit breaker."""

    def __init__(self, triton: Triton, breaker: Breaker, *, budget_s: float) -> None:
        self._triton = triton
        self._breaker = breaker
        self._budget_s = budget_s

    async def fuse(self, *requests: FusionRequest, deadline: Deadline) -> list[FusionAnswer]:
        """An answer for each request, in order.

        Raises:
            ModelUnavailable: at least one has none.
        """
        if not self._breaker.allows():
            raise ModelUnavailable("Triton does not answer", reason="gone")
        left_s = deadline.left_s(self._budget_s)
        try:
            if len(requests) == 1:
                answers = [await self._triton.fuse(requests[0], left_s)]
            else:
                answers = await self._triton.fuse_all(requests, left_s)
        except ModelUnavailable as error:
            if error.reason != "slow" or left_s == self._budget_s:  # else a hurried caller's fault
                self._breaker.failed(str(error))
            raise
        self._breaker.succeeded()
        return answers
