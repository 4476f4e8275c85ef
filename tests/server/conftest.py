"""One empty shop and one with a trained release, each with a running gateway, for the whole run."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator

import pytest

from features import store
from features.settings import Settings
from tests.conftest import NewSettings, StartTriton
from tests.processes import environment, free_ports, running
from tests.server.client import Client, RunningGateway, gateway
from tests.server.shop import fill, train_and_publish


@pytest.fixture(scope="session")
def empty_shop(new_settings: NewSettings) -> Iterator[RunningGateway]:
    """A gateway on a shop with neither items nor events nor a release; tests add what they need under own names."""
    settings = new_settings()
    store.apply(settings)
    with gateway(settings) as running_gateway:
        yield running_gateway


@pytest.fixture(scope="session")
def empty_client(empty_shop: RunningGateway) -> Client:
    """A client of `empty_shop`."""
    return empty_shop.client


@pytest.fixture(scope="session")
def trained_shop(new_settings: NewSettings) -> Settings:
    """A filled shop whose first release is live; nobody writes in it: take a copy."""
    settings = new_settings()
    fill(settings)
    train_and_publish(settings)
    return settings


def copy_of(shop: Settings, new_settings: NewSettings, **overrides: str) -> Settings:
    """The same shop in another home; what another online store is to hold has to be written there."""
    settings = new_settings(**overrides)
    shutil.copytree(shop.home, settings.home, dirs_exist_ok=True, ignore=shutil.ignore_patterns("logs"))
    return settings


@pytest.fixture(scope="session")
def released_shop(
    trained_shop: Settings, new_settings: NewSettings, start_triton: StartTriton
) -> Iterator[RunningGateway]:
    """A gateway with Triton and the stream worker on a shop with a release; tests write under names of their own."""
    settings = copy_of(trained_shop, new_settings)
    start_triton(settings)
    stream = [sys.executable, "-m", "features", "stream"]
    with running(stream, settings.logs / "stream.log", env=environment(settings)), gateway(settings) as on_it:
        yield on_it


@pytest.fixture(scope="session")
def client(released_shop: RunningGateway) -> Client:
    """A client of `released_shop`."""
    return released_shop.client


@pytest.fixture(scope="session")
def second_client(released_shop: RunningGateway) -> Iterator[Client]:
    """A client of another gateway process on `released_shop`."""
    settings = released_shop.settings.model_copy(update={"gateway_address": f"127.0.0.1:{free_ports()}"})
    with gateway(settings) as on_it:
        yield on_it.client
