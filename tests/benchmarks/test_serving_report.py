"""The serving bench's tables: the ratio is against the best peer, and a peer that cannot be run is named with why."""

from __future__ import annotations

from benchmarks.offered_load import OK, Call
from benchmarks.serving.report import BesidePeer, Load, Report
from benchmarks.serving.targets import BARE_GATEWAY, EMPTY, FEAST, GATEWAY, TRITON


def load(name: str, concurrency: int, answered: int, cpu_s: tuple[float, float] = (0.0, 0.0)) -> Load:
    """One of a second."""
    calls = [Call(0.01, OK, "", 0.0)] * answered
    return Load.of(name, calls, 1.0, rate=0.0, concurrency=concurrency, cpu_s=cpu_s)


def test_the_ratio_is_against_the_best_of_the_peers_at_saturation() -> None:
    slow = [load(GATEWAY, 1, 300), load("slow", 1, 50), load(GATEWAY, 16, 200), load("slow", 16, 100)]
    fast = [load(GATEWAY, 16, 400, (0.4, 0.8)), load("fast", 16, 160, (0.8, 0.0)), load("fast", 64, 80)]
    report = Report(
        request_bytes=1,
        response_bytes=1,
        alone={name: {"p50": 1.0, "p95": 1.0, "p99": 1.0} for name in (EMPTY, TRITON, FEAST, GATEWAY)},
        closed=[load(name, 16, 100) for name in (EMPTY, GATEWAY, BARE_GATEWAY)],
        peers=[
            BesidePeer(peer="slow", loads=slow),
            BesidePeer(peer="fast", loads=fast),
            BesidePeer(peer="gone", error="no disk"),
        ],
    )
    tables = {table.title: table.rows for table in report.tables()}
    assert ("answers/s at saturation, of the best peer's (fast)", "2.50") in tables["Gateway"]
    assert tables["Peers"] == (
        ("slow", "100", "300", "3.00", "0.00", "0.00"),
        ("fast", "160", "400", "2.50", "5.00", "3.00"),
        ("gone", "not measured: no disk", "", "", "", ""),
    )
    assert [row[:2] for row in tables["Beside peers, by turns"]].count(("slow", "16 under way")) == 1
