"""One gateway process drives Triton: where it hangs another one does, and it finds so when it goes on."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from features.settings import Settings
from server.releases import election
from server.releases.election import Election
from tests.conditions import eventually
from tests.conftest import NewSettings
from tests.parts import held
from tests.processes import free_ports, running, tail
from tests.server.client import gateway
from tests.server.conftest import copy_of
from tests.server.test_ladder import BELOW, FULL, listening, triton_of

HOLDER = """
import asyncio, sys
from pathlib import Path
from server.releases import election

election.KEEP_S = 0.05
asyncio.run(election.Election(Path(sys.argv[1])).follow())
"""


def test_a_holder_is_replaced_while_it_hangs_and_not_while_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, log = tmp_path / "triton.lock", tmp_path / "holder.log"
    monkeypatch.setattr(election, "LEASE_S", 1.0)
    with running([sys.executable, "-c", HOLDER, str(lock)], log) as holder:
        eventually(lock.exists, within_s=30, what="the other process' election")
        began_s, mine = lock.stat().st_mtime, Election(lock)

        def lives_on() -> bool:
            assert not mine.won()
            return lock.stat().st_mtime > began_s + 2 * election.LEASE_S

        eventually(lives_on, what="signs of life")
        with held([psutil.Process(holder.pid)]):
            eventually(mine.won, what="my election")
        eventually(lambda: "another process drives Triton" in tail(log), what="the end of the other's")
        assert mine.won()
        mine.resign()
        kept_s = lock.stat().st_mtime
        eventually(lambda: lock.stat().st_mtime > kept_s, what="the other's election")
        assert not mine.won()


def test_a_triton_that_returns_is_loaded_though_the_elected_gateway_hangs(
    trained_shop: Settings, new_settings: NewSettings
) -> None:
    settings = copy_of(trained_shop, new_settings)
    with ExitStack() as parts:
        triton, elected = triton_of(parts, settings), parts.enter_context(gateway(settings))
        beside = settings.model_copy(update={"gateway_address": f"127.0.0.1:{free_ports()}"})
        other = parts.enter_context(gateway(beside))

        def tier() -> int:
            return other.client.recommend("user-3").tier

        eventually(lambda: tier() == FULL, within_s=60, what="the full tier")
        with held([psutil.Process(elected.process.pid)]):
            triton.kill()
            eventually(lambda: tier() in BELOW, what="the lower tier")
            listening(triton, settings)
            eventually(lambda: tier() == FULL, within_s=60, what="the full tier again")
        eventually(lambda: elected.client.recommend("user-3").tier == FULL, within_s=30, what="the first one's return")
