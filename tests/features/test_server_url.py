"""A database server whose host has vanished is given up soon, whoever has a connection to it."""

from __future__ import annotations

import socket

import pytest
from sqlalchemy import Engine

from features.database.engine import DatabaseError, open_database
from features.database.server_url import sqlalchemy_url
from features.locks import own_engine
from features.store import apply, close, open_registry
from tests.conftest import NewSettings


def options(engine: Engine) -> tuple[int, ...]:
    """Of a connection: seconds until an idle one is asked, between questions, and ms until one without answer ends."""
    with engine.connect() as connection, socket.fromfd(driver_file(connection), socket.AF_INET, 0) as found:
        assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        wanted = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_USER_TIMEOUT)
        values = tuple(found.getsockopt(socket.IPPROTO_TCP, option) for option in wanted)
    engine.dispose()
    return values


def driver_file(connection: object) -> int:
    number: int = connection.connection.driver_connection.fileno()  # type: ignore[attr-defined]
    return number


def test_every_connection_gives_up_a_server_that_has_vanished(postgres_url: str, new_settings: NewSettings) -> None:
    settings = new_settings(database_url=postgres_url)
    apply(settings)
    registry = open_registry(settings)
    for engine in (open_database(postgres_url), own_engine(postgres_url), registry.registry.write_engine):  # type: ignore[attr-defined]
        assert options(engine) == (5, 2, 10_000)
    close(registry)


def test_what_the_url_says_itself_stays(postgres_url: str) -> None:
    assert options(open_database(f"{postgres_url}?tcp_user_timeout=3000&keepalives_idle=1")) == (1, 2, 3_000)


@pytest.mark.parametrize(
    "url", ["sqlite:////srv/braid/braid.db", "postgresql://ann:p%40ss@[::1]:5432/shop?sslmode=require"]
)
def test_the_rest_of_a_url_is_as_it_was(url: str) -> None:
    found = sqlalchemy_url(url)
    assert found.startswith(url.replace("postgresql:", "postgresql+psycopg:").partition("?")[0])
    assert ("sslmode=require" in found) == ("sslmode=require" in url)


@pytest.mark.parametrize("url", ["postgresql://u:hunter2@{}/d", "postgresql://u@{}/d?password=hunter2"])
def test_a_database_that_cannot_be_opened_is_told_without_its_password(url: str) -> None:
    with pytest.raises(DatabaseError, match=r"BRAID_DATABASE_URL: postgresql://u.*@127\.0\.0\.1:1/d cannot") as refused:
        open_database(url.format("127.0.0.1:1"))
    assert "hunter2" not in str(refused.value)
