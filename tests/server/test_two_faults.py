"""A second part fails while the first is gone: what the second one's return brings back waits for no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from benchmarks.random_release import random_model
from tests.conditions import eventually
from tests.conftest import NewSettings
from tests.parts import Part, held, stoppable
from tests.postgres import answers, new_cluster
from tests.server.client import RunningGateway, gateway
from tests.server.shop import fill, items
from tests.server.test_ladder import BACK_S, BELOW, FULL, listening, triton_of
from training.publish import publish


@pytest.fixture(scope="module")
def on_postgresql(new_settings: NewSettings) -> Iterator[tuple[RunningGateway, Part, Part]]:
    """A gateway, its database and its Triton."""
    with TemporaryDirectory(prefix="braid-postgres-") as folder, ExitStack() as parts:
        cluster = new_cluster(Path(folder))
        database = parts.enter_context(stoppable(Part(parts, cluster.command, cluster.log)))
        eventually(lambda: answers(cluster.url), within_s=60, what="PostgreSQL's first answer")
        settings = new_settings(database_url=cluster.url)
        fill(settings)
        publish(settings, random_model(items()), why="a test", note=lambda _: None, although_worse="random weights")
        triton = triton_of(parts, settings)
        yield parts.enter_context(gateway(settings)), database, triton


def test_triton_comes_back_while_the_database_hangs(on_postgresql: tuple[RunningGateway, Part, Part]) -> None:
    shop, database, triton = on_postgresql

    def tier() -> int:
        return shop.client.recommend("user-3").tier

    eventually(lambda: tier() == FULL, within_s=60, what="the full tier")
    with held(database.family()):
        triton.kill()
        eventually(lambda: tier() in BELOW, what="the lower tier")
        listening(triton, shop.settings)
        eventually(lambda: tier() == FULL, within_s=BACK_S, what="the full tier without the database")
