"""How many calls may be under way, judged by how long they are delayed; what is more is refused at once.

A call's delay is what it takes longer than the quickest of its method of late, as in TCP Vegas (Brakmo and Peterson,
1995): the lines before the feature store and the model, and their growing batches. Beside it stands what no call can
tell, how long gRPC keeps calls before the event loop takes them in; `server.overload.self_probe` measures that. Every
`WINDOW_S` the sum is set against a target, as CoDel has one (RFC 8289), and the limit follows the ratio by the rule of
Netflix' gradient limiter (concurrency-limits, `Gradient2Limit`): it always gains its own square root, and loses what
the ratio says. It gains what the ratio says as well, since delays grow with the calls under way (Little's law): a limit
that falls by shares and rises by steps stands too low after every hitch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from server.errors import Overloaded
from server.metrics import ADMISSION_LIMIT, CALLS_REFUSED

WINDOW_S = 0.1
"""Between two adjustments of the limit."""
QUICKEST_S = 10.0
"""How long the quickest call of a method is remembered, twice that at most."""
FEWEST = 8
"""The limit never falls below: a part below that hangs delays calls without there being many."""
FEWEST_IN_A_SWITCH = 128
"""The same while a release is being made ready on these cores: a delay of ours, over in seconds, is better waited for
than refused; as many are answered within about half a second."""
AT_START = 64
STEEPEST, HIGHEST = 0.2, 2.0
"""Least and most of the ratio that is believed at once."""
SMOOTHING = 0.5
RETRY_AFTER_S = 0.5
TOO_MANY = "as many calls are under way as are answered in time; send again later"


class CallLimit:
    """How many calls this process works on at once, whatever they are: what bounds its memory."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.under_way = 0

    def enter(self) -> None:
        """Counts a call in.

        Raises:
            Overloaded: there are too many; it is not counted.
        """
        if self.under_way >= self.most:
            CALLS_REFUSED.labels("memory").inc()
            raise Overloaded(f"{self.most} calls are under way, no more are taken", retry_after_s=RETRY_AFTER_S)
        self.under_way += 1

    def leave(self, method: str, seconds: float) -> None:
        """Counts a call out."""
        self.under_way -= 1


class Admission:
    """The limit of the calls that recommend; within that of all calls.

    Args:
        switching: whether a release is being made ready now.
    """

    def __init__(
        self,
        calls: CallLimit,
        *,
        target_s: float,
        switching: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = float(min(AT_START, calls.most))
        self.under_way = 0
        self._calls = calls
        self._target_s = target_s
        self._switching = switching
        self._clock = clock
        self._quickest_s: dict[str, float] = {}
        self._quickest_before_s: dict[str, float] = {}
        self._forget_s = clock() + QUICKEST_S
        self._used = False
        self._begin_window()

    @property
    def full(self) -> bool:
        """Whether the next call is refused."""
        return self.under_way >= int(self.limit)

    def enter(self) -> None:
        """As `CallLimit.enter`."""
        if self.full:
            CALLS_REFUSED.labels("delay").inc()
            raise Overloaded(TOO_MANY, retry_after_s=RETRY_AFTER_S)
        self._calls.enter()
        self.under_way += 1
        self._used = self._used or self.under_way > self.limit / 2

    def leave(self, method: str, seconds: float) -> None:
        """Counts a call out that took so long, but for what it waited in vain for a part below."""
        self._calls.leave(method, seconds)
        self.under_way -= 1
        self._left += 1
        quickest_s = self._quickest_s[method] = min(seconds, self._quickest_s.get(method, seconds))
        self._delay_s += seconds - min(quickest_s, self._quickest_before_s.get(method, seconds))

    def adjust(self, unseen_s: float) -> None:
        """Ends a window, in which a call waited `unseen_s` before the event loop took it in."""
        delay_s = unseen_s + self._delay_s / max(1, self._left)
        gradient = max(STEEPEST, min(HIGHEST, self._target_s / delay_s if delay_s else HIGHEST))
        wanted = self.limit * gradient + math.sqrt(self.limit)
        if wanted < self.limit or self._used:  # what is not used says nothing about more
            self.limit += SMOOTHING * (wanted - self.limit)
        fewest = FEWEST_IN_A_SWITCH if self._switching() else FEWEST
        self.limit = min(max(self.limit, fewest), self._calls.most)
        ADMISSION_LIMIT.set(self.limit)
        if self._clock() >= self._forget_s:
            self._forget_s = self._clock() + QUICKEST_S
            self._quickest_before_s, self._quickest_s = self._quickest_s, {}
        self._begin_window()

    def _begin_window(self) -> None:
        self._delay_s = 0.0
        self._left = 0
        self._used = self.under_way > self.limit / 2
