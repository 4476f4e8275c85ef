"""Calls over HTTP: answers of any framing, connections that are kept, and every failure under gRPC's name for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.http_door import HttpDoor
from tests.conditions import eventually_async

ANSWERS = {
    b"length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    b"last": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
    b"leaves": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"busy": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    b"broken": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    b"nonsense": b"what?\r\n\r\n",
}


@asynccontextmanager
async def served() -> AsyncIterator[tuple[HttpDoor, list[int]]]:
    """A door to a server that answers by the request's body, and the number of requests on each connection."""
    connections: list[int] = []
    under_way: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(connections)
        connections.append(0)
        under_way.append(asyncio.current_task())
        while head := await reader.read(4096):
            connections[number] += 1
            body = head.partition(b"\r\n\r\n")[2]
            if body == b"gone":
                break
            writer.write(ANSWERS.get(body, b""))
            if body == b"leaves":
                break
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        door = HttpDoor(f"127.0.0.1:{port}", "/recommend", 0.3)
        yield door, connections
        await door.close()
        await asyncio.gather(*filter(None, under_way))


async def test_answers_come_over_a_connection_that_is_kept_until_the_server_ends_it() -> None:
    async with served() as (door, connections):
        for message in (b"length", b"chunks", b"last", b"length"):
            assert await door.call(message) == ("OK", b"hello")
        assert connections == [3, 1]


async def test_a_connection_that_the_server_has_left_is_not_used_again() -> None:
    async with served() as (door, connections):
        assert await door.call(b"leaves") == ("OK", b"hello")
        await eventually_async(lambda: asyncio.sleep(0, not any(it.kept for it in door._free)))
        assert await door.call(b"length") == ("OK", b"hello")
        assert connections == [1, 1]


async def test_calls_at_once_have_connections_of_their_own() -> None:
    async with served() as (door, connections):
        assert await asyncio.gather(*(door.call(b"length") for _ in range(3))) == [("OK", b"hello")] * 3
        assert connections == [1, 1, 1]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"busy", "RESOURCE_EXHAUSTED"),
        (b"broken", "HTTP 500"),
        (b"nonsense", "UNAVAILABLE"),
        (b"gone", "UNAVAILABLE"),
        (b"silence", "DEADLINE_EXCEEDED"),
    ],
)
async def test_failures_have_names_and_the_next_call_is_answered(message: bytes, code: str) -> None:
    async with served() as (door, _):
        assert (await door.call(message))[0] == code
        assert await door.call(b"length") == ("OK", b"hello")


async def test_nobody_at_the_address_is_unavailable() -> None:
    async with served() as (door, _):
        pass
    assert await door.call(b"length") == ("UNAVAILABLE", b"")
