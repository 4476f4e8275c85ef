"""The overload bench's table accounts for every call."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from benchmarks import overload
from benchmarks.overload import Outcome


def outcome(goodput: float, failed: float) -> Outcome:
    """Of a load."""
    return Outcome(
        offered=1_000.0, goodput=goodput, p50_ms=1.0, p99_ms=2.0, refused=300.0, failed=failed, refusal_p99_ms=3.0,
        refused_within_5_ms_by_the_gateway=1.0, gateway_bytes=0, limit=8.0, health_s=0.1, codes={}, tiers={},
    )  # fmt: skip


def test_calls_that_got_no_answer_and_no_refusal_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(overload, "console", Console(file=written, width=200))
    overload.show({64: outcome(1_000.0, 0.0)}, {3.0: outcome(623.0, 77.0)}, [outcome(1_000.0, 0.0)] * 2, 64)
    (row,) = (line for line in written.getvalue().splitlines() if "3 x saturation" in line)
    assert [cell.strip() for cell in row.split("│")[2:4]] == ["1000", "623"]
    assert "77" in [cell.strip() for cell in row.split("│")]
