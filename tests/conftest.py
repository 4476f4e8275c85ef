"""Real servers for every test: Redis, PostgreSQL, Triton; each started once a run, on loopback, in a folder of its own.

A server that is not installed fails the test with the package to install; nothing is skipped.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import psycopg
import pytest
import redis
import tritonclient.grpc as triton_client
from sqlalchemy import Engine

from features.database.engine import open_database
from features.settings import ROOT, Settings
from tests import postgres
from tests.conditions import eventually
from tests.processes import environment, free_ports, required_binary, running, until_up


def pytest_configure() -> None:
    """A shop that the caller's environment names is none of the tests' business."""
    for name in [name for name in os.environ if name.startswith("BRAID_")]:
        del os.environ[name]


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of an empty Redis, as Feast writes its connection strings."""
    binary = required_binary("redis-server", "redis-server")
    folder = tmp_path_factory.mktemp("redis")
    port = free_ports()
    command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    with running(command, folder / "redis.log"):
        with redis.Redis(port=port) as client:
            eventually(client.ping, what="Redis' first answer")
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of the database `postgres` in a cluster of our own; take `postgres_url` for a database to write in."""
    with TemporaryDirectory(prefix="braid-postgres-") as name:  # pytest's own folders are closed to other users
        cluster = postgres.new_cluster(Path(name))
        with postgres.serving(cluster):
            yield cluster.url


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """URL of a fresh, empty PostgreSQL database, dropped after the test."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield postgres_server.rsplit("/", 1)[0] + f"/{name}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a fresh, empty database; the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'braid.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on a fresh, migrated database."""
    engine = open_database(database_url)
    yield engine
    engine.dispose()


NewSettings = Callable[..., Settings]


@pytest.fixture(scope="session")
def new_settings(tmp_path_factory: pytest.TempPathFactory) -> NewSettings:
    """Makes shops: `new_settings(online_store="redis", redis_url=…)` has a fresh home, repository and ports."""

    def make(**overrides: object) -> Settings:
        home = tmp_path_factory.mktemp("shop")
        repository = home / "model_repository"
        for config in (ROOT / "model_repository").glob("*/config.pbtxt"):
            target = repository / config.parent.name
            target.mkdir(parents=True)
            shutil.copyfile(config, target / config.name)
        repository.mkdir(exist_ok=True)
        ports = free_ports(4)
        values: dict[str, object] = {
            "home": home,
            "model_repository": repository,
            "gateway_address": f"127.0.0.1:{ports}",
            "triton_address": f"127.0.0.1:{ports + 2}",
        }
        return Settings(**(values | overrides))  # type: ignore[arg-type]

    return make


@pytest.fixture
def settings(new_settings: NewSettings) -> Settings:
    """An empty shop for one test, on SQLite: own home, own model repository with the committed configs, free ports."""
    return new_settings()


@pytest.fixture(scope="session")
def session_settings(new_settings: NewSettings) -> Settings:
    """One shop for the whole run; whoever writes into it writes for all."""
    return new_settings()


StartTriton = Callable[[Settings], str]


@pytest.fixture(scope="session")
def start_triton() -> Iterator[StartTriton]:
    """Starts the real tritonserver on a shop's model repository, no model loaded, and returns its gRPC address.

    It is stopped at the end of the run.
    """
    with ExitStack() as servers:

        def start(settings: Settings) -> str:
            log = settings.logs / "triton.log"
            command = [sys.executable, "-m", "deploy.embedded.triton"]
            process = servers.enter_context(running(command, log, env=environment(settings)))
            client = servers.enter_context(triton_client.InferenceServerClient(settings.triton_address))
            until_up(process, client.is_server_live, log, what="Triton")
            return settings.triton_address

        yield start


@pytest.fixture(scope="session")
def triton(session_settings: Settings, start_triton: StartTriton) -> str:
    """gRPC address of a running Triton on `session_settings.model_repository`."""
    return start_triton(session_settings)
