"""Load processes: as many calls under way as were asked for, and none left behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from benchmarks.empty_server import METHOD
from benchmarks.latency import empty_server
from benchmarks.offered_load import OK, LoadProcess, Plan, Target, put_load
from tests.conditions import eventually


@contextmanager
def target() -> Iterator[Target]:
    """The empty method."""
    with empty_server(1) as port:
        yield Target.of(f"127.0.0.1:{port}", METHOD, [b"x"] * 8)


def loads() -> list[psutil.Process]:
    """Load processes of this one."""
    children = psutil.Process().children()
    return [child for child in children if child.is_running() and "benchmarks.offered_load" in child.cmdline()]


def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans of every load process that is begun from here on."""
    found: list[Plan] = []
    begin = LoadProcess.__init__

    def noted(self: LoadProcess, plan: Plan, folder: Path) -> None:
        found.append(plan)
        begin(self, plan, folder)

    monkeypatch.setattr(LoadProcess, "__init__", noted)
    return found


@pytest.mark.parametrize("concurrency", [1, 3, 4])
def test_all_calls_that_are_asked_for_are_under_way(concurrency: int, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = plans(monkeypatch)
    with target() as empty:
        calls = put_load(empty, seconds=0.2, timeout_s=20.0, concurrency=concurrency)
    assert sum(plan.concurrency for plan in begun) == concurrency
    assert calls and {call.code for call in calls} == {OK}


def test_a_load_ends_with_the_bench_that_began_it(tmp_path: Path) -> None:
    plan = Plan(target=Target.of("127.0.0.1:1", METHOD, [b"x"]), seconds=600.0, timeout_s=1.0, rate=1.0)
    with pytest.raises(SystemExit), LoadProcess(plan, tmp_path):
        eventually(loads, what="the load process")
        sys.exit("a release did not answer")
    assert not loads()
