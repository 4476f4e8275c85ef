"""A second part fails while the first is gone: what the second one's return brings back waits for no other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conditions import eventually
from tests.conftest import NewSettings
from tests.parts import Part, held
from tests.server.client import RunningGateway
from tests.server.test_ladder import BACK_S, BELOW, FULL, listening, shop_on_postgresql


@pytest.fixture(scope="module")
def on_postgresql(new_settings: NewSettings) -> Iterator[tuple[RunningGateway, Part, Part]]:
    """A gateway, its database and its Triton."""
    with shop_on_postgresql(new_settings) as found:
        yield found


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
