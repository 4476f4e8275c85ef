"""How many calls may be under way, judged by how long they are delayed; what is more is refused at once.

A call's delay is what it takes longer than the quickest of its method of late, as in TCP Vegas (Brakmo and Peterson,
1995): the lines before the feature store and the model, and their growing batches. Every `WINDOW_S` it is set against a
target, and the limit follows the ratio by the rule of Netflix' gradient limiter (concurrency-limits, `Gradient2Limit`):
it always gains its own square root, and loses what the ratio says. It gains what the ratio says as well: a limit that
falls by shares and rises by steps stands too low after every hitch. Delays grow with the calls under way (Little's
law), and what ended was delayed by those of its own time. So its delay counts as it would be with as many under way as
may be now; a limit that takes delays as they come runs behind itself, and swings.

No call can tell how long gRPC kept it before the event loop took it in: `server.overload.self_probe` asks. That line
grows and shrinks within milliseconds, so it is heeded at each call: the longer it stands, the smaller the part of the
limit that holds. To refuse costs a quarter of an answer, and those under way go on meanwhile.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from itertools import islice

from server.errors import Overloaded
from server.metrics import ADMISSION_LIMIT, CALLS_REFUSED

WINDOW_S = 0.1
"""Between two adjustments of the limit."""
QUICKEST_S = 10.0
"""How long the quickest call of a method is remembered, twice that at most."""
FEWEST = 8
"""So many may always be under way: a part that hangs, or one large message, delays calls without there being many."""
FEWEST_IN_A_SWITCH = 128
"""The same while a release is being made ready on these cores: a delay of ours, over in seconds, is better waited for
than refused; as many are answered within about half a second."""
AT_START = 64
STEEPEST, HIGHEST = 0.2, 2.0
"""Least and most of the ratio that is believed at once."""
SMOOTHING = 0.5
REMEMBERED = 20
"""Windows whose calls under way are known: more than a call lives."""
LINE = 1.2
"""Times the target that calls wait in gRPC's line where it takes all but `FEWEST` of the limit."""
LEAST_LINE_S = 0.1
"""The line may be so long, however short the target is."""
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
        line_s: how long calls wait now before the event loop takes them in.
        switching: whether a release is being made ready now.
    """

    def __init__(
        self,
        calls: CallLimit,
        *,
        target_s: float,
        line_s: Callable[[], float] = lambda: 0.0,
        switching: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = float(min(AT_START, calls.most))
        self.under_way = 0
        self._calls = calls
        self._target_s = target_s
        self._line_s = line_s
        self._longest_line_s = max(LEAST_LINE_S, LINE * target_s)
        self._switching = switching
        self._clock = clock
        self._quickest_s: dict[str, float] = {}
        self._quickest_before_s: dict[str, float] = {}
        self._forget_s = clock() + QUICKEST_S
        self._used = False
        self._counted_s = clock()
        self._under_way_before: deque[float] = deque(maxlen=REMEMBERED)  # a mean for each window, the newest first
        self._begin_window()

    @property
    def full(self) -> bool:
        """Whether the next call out of the line is refused, before anything is read of it."""
        line = 0.0 if self._switching() else self._line_s() / self._longest_line_s
        return self.under_way >= max(FEWEST, int(self.limit * (1 - line)))

    def enter(self) -> None:
        """As `CallLimit.enter`; the call has the line behind it."""
        if self.under_way >= int(self.limit):
            CALLS_REFUSED.labels("delay").inc()
            raise Overloaded(TOO_MANY, retry_after_s=RETRY_AFTER_S)
        self._calls.enter()
        self._count(1)
        self._used = self._used or self.under_way > self.limit / 2

    def leave(self, method: str, seconds: float) -> None:
        """Counts a call out that took so long, but for what it waited in vain for a part below."""
        self._calls.leave(method, seconds)
        self._count(-1)
        self._left += 1
        self._seconds += seconds
        quickest_s = self._quickest_s[method] = min(seconds, self._quickest_s.get(method, seconds))
        self._delay_s += seconds - min(quickest_s, self._quickest_before_s.get(method, seconds))

    async def follow(self) -> None:
        """Adjusts the limit at the end of each window, for ever."""
        while True:
            await asyncio.sleep(WINDOW_S)
            self.adjust()

    def adjust(self) -> None:
        """Ends a window; one in which no call ended says nothing."""
        self._count(0)
        self._under_way_before.appendleft(self._call_seconds / max(WINDOW_S, self._counted_s - self._began_s))
        if self._left:
            delay_s = self._expected_delay_s()
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

    def _expected_delay_s(self) -> float:
        """How long the window's calls would have been delayed with as many under way as may be now."""
        lived = 1 + math.ceil(self._seconds / self._left / WINDOW_S)
        beside = max(1.0, *islice(self._under_way_before, lived))
        now = self.limit if self._used else min(self.limit, self._under_way_before[0])
        return self._delay_s / self._left * now / beside

    def _count(self, change: int) -> None:
        now_s = self._clock()
        self._call_seconds += self.under_way * (now_s - self._counted_s)
        self._counted_s = now_s
        self.under_way += change

    def _begin_window(self) -> None:
        self._delay_s = self._seconds = self._call_seconds = 0.0
        self._began_s = self._counted_s
        self._left = 0
        self._used = self.under_way > self.limit / 2
