"""A part that does not answer is left alone, but for a trial now and then."""

from __future__ import annotations

from server.infer.breaker import Breaker


class Clock:
    """A clock that a test moves."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_three_failures_in_a_row_open_it_and_a_success_closes_it() -> None:
    clock = Clock()
    breaker = Breaker("part", failures=3, retry_s=1.0, clock=clock)
    for _ in range(2):
        breaker.failed("slow")
    breaker.succeeded()
    for _ in range(2):
        breaker.failed("slow")
    assert breaker.allows()
    breaker.failed("slow")
    assert not breaker.allows()
    clock.now_s += 1.0
    assert breaker.allows()
    assert not breaker.allows()  # one trial, not two
    breaker.failed("slow")
    assert not breaker.allows()
    clock.now_s += 1.0
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.allows() and breaker.allows()
