"""A database that hangs costs whoever filters by a shopper's history a few waits, and nobody else a call."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from threading import Event
from uuid import uuid4

import psycopg
import pytest
from prometheus_client import REGISTRY

from braid.v1 import recommendation_pb2 as rec
from features import store
from server.deadline import Deadline
from server.errors import HistoryUnavailable
from server.hydrate.history_reader import HistoryReader
from tests.conditions import eventually, eventually_async
from tests.conftest import NewSettings
from tests.parts import Part, held, stoppable_postgresql
from tests.server.client import RunningGateway, gateway

TODAY = rec.Filter(exclude_shown_today=True)
BUDGET_S = 0.1


def is_open() -> bool:
    return REGISTRY.get_sample_value("braid_breaker_open", {"part": "shopper-history"}) == 1


async def waited_s(reader: HistoryReader, gate: Event, within_s: float = 10.0) -> float:
    """How long a read waits in vain, as it tells admission."""
    deadline = Deadline.after(within_s)
    with pytest.raises(HistoryUnavailable):
        await reader.read(deadline, gate.wait)
    return deadline.in_vain_s


async def test_reads_that_hang_are_waited_for_in_vain_three_times_and_then_tried_now_and_then() -> None:
    gate = Event()
    with closing(HistoryReader(budget_s=BUDGET_S)) as reader:
        for _ in range(3):
            assert not is_open()
            assert BUDGET_S / 2 < await waited_s(reader, gate) < 10 * BUDGET_S
        assert is_open()
        assert await waited_s(reader, gate) == 0.0
        gate.set()

        async def answered() -> bool:
            return await reader.read(Deadline(), gate.wait)

        assert await eventually_async(answered, what="a trial that succeeds")
        assert not is_open()


async def test_a_caller_in_a_hurry_says_nothing_of_the_database() -> None:
    gate = Event()
    with closing(HistoryReader(budget_s=BUDGET_S)) as reader:
        for _ in range(5):
            assert await waited_s(reader, gate, within_s=BUDGET_S / 5) < BUDGET_S
        assert not is_open()
        gate.set()


async def test_a_read_that_hangs_leaves_a_caller_in_a_hurry_time_for_the_model() -> None:
    gate, deadline = Event(), Deadline.after(0.6)
    with closing(HistoryReader(budget_s=10.0)) as reader:
        with pytest.raises(HistoryUnavailable):
            await reader.read(deadline, gate.wait)
        left_s = deadline.left_s(10.0)
        gate.set()
    assert left_s > 0.1


@pytest.fixture
def on_postgresql(new_settings: NewSettings) -> Iterator[tuple[RunningGateway, Part, str]]:
    """A gateway whose database is a PostgreSQL of its own, that, and where the metrics are."""
    with ExitStack() as parts:
        database, url = stoppable_postgresql(parts)
        settings = new_settings(database_url=url)
        store.apply(settings)
        host, _, port = settings.gateway_address.rpartition(":")
        metrics = f"{host}:{int(port) + 1}"  # one of the shop's own ports
        yield parts.enter_context(gateway(settings, metrics_address=metrics)), database, metrics


def test_while_the_database_hangs_a_filter_by_history_costs_three_waits_and_one_line_of_the_log(
    on_postgresql: tuple[RunningGateway, Part, str],
) -> None:
    shop, database, metrics = on_postgresql

    def ask() -> float:
        began_s = time.monotonic()
        shop.client.recommend(uuid4().hex, filter=TODAY)
        return time.monotonic() - began_s

    def gone() -> bool:
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=5) as page:
            return 'braid_breaker_open{part="shopper-history"} 1.0' in page.read().decode()

    ask()
    assert not gone()
    with held(database.family()):
        took_s = [ask() for _ in range(20)]
        assert gone()
        assert shop.log.count("part=shopper-history stopped answering") == 1
    assert min(took_s[:3]) > 0.2 > sorted(took_s)[len(took_s) // 2]
    eventually(lambda: ask() and not gone(), what="the database's return")
    assert shop.log.count("shopper-history answers again") == 1
    assert [line for line in shop.log.splitlines() if "WARNING" in line and "shown today" in line] == []


def test_what_follows_the_database_in_the_background_keeps_no_filter_waiting(
    on_postgresql: tuple[RunningGateway, Part, str],
) -> None:
    shop, _, _ = on_postgresql
    with psycopg.connect(shop.settings.log_url.replace("+psycopg", "")) as connection:
        connection.execute("LOCK TABLE counters IN ACCESS EXCLUSIVE MODE")

        def all_wait() -> bool:
            row = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
            return row is not None and row[0] >= 2

        eventually(all_wait, within_s=30, what="the threads that follow, which wait for the table")
        for _ in range(5):
            began_s = time.monotonic()
            shop.client.recommend(uuid4().hex, filter=TODAY)
            assert time.monotonic() - began_s < 0.2
