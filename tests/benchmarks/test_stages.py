"""The stopwatch of the stages."""

from __future__ import annotations

from benchmarks.serving.stages import OUTSIDE, Stopwatch


def test_the_start_of_the_gateway_is_no_part_of_a_call() -> None:
    watch = Stopwatch(_wall_ns=0, _cpu_ns=0)  # since the machine's start
    watch.enter("decode")
    watch.enter(OUTSIDE)
    assert watch.wall_ns[OUTSIDE] == watch.cpu_ns[OUTSIDE] == 0
    watch.enter("decode")
    assert 0 < watch.wall_ns[OUTSIDE] < 1e9 and watch.wall_ns["decode"] > 0
