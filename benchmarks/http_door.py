"""Calls over HTTP/1.1 on connections that are kept, with as little work for the client as a gRPC call has."""

from __future__ import annotations

import asyncio
from typing import cast

import httptools
from grpc import StatusCode

STATUSES = {
    200: StatusCode.OK.name,
    429: StatusCode.RESOURCE_EXHAUSTED.name,
    503: StatusCode.RESOURCE_EXHAUSTED.name,
    504: StatusCode.DEADLINE_EXCEEDED.name,
}


class HttpDoor:
    """Posts JSON to one path; a connection for each call under way, closed after a call that failed."""

    def __init__(self, address: str, path: str, timeout_s: float) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._timeout_s = timeout_s
        head = f"POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: "
        self._head = head.encode()
        self._free: list[_Connection] = []

    async def call(self, message: bytes) -> tuple[str, bytes]:
        """Status, in gRPC's names, and answer."""
        try:
            return await self._call(message)
        except asyncio.TimeoutError:
            return StatusCode.DEADLINE_EXCEEDED.name, b""
        except (OSError, httptools.HttpParserError):
            return StatusCode.UNAVAILABLE.name, b""

    async def close(self) -> None:
        """Closes the connections."""
        for connection in self._free:
            connection.close()

    async def _call(self, message: bytes) -> tuple[str, bytes]:
        connection = await self._connection()
        request = b"%s%d\r\n\r\n%s" % (self._head, len(message), message)
        try:
            status, answer = await connection.send(request, self._timeout_s)
        except BaseException:
            connection.close()
            raise
        if connection.kept:
            self._free.append(connection)
        else:
            connection.close()
        return STATUSES.get(status, f"HTTP {status}"), answer

    async def _connection(self) -> _Connection:
        while self._free:
            connection = self._free.pop()
            if connection.kept:  # the server may have closed it meanwhile
                return connection
        made = asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
        return (await asyncio.wait_for(made, self._timeout_s))[1]


class _Connection(asyncio.Protocol):
    """One request at a time; its parser calls the methods named on_…"""

    def __init__(self) -> None:
        self.kept = True
        self._transport: asyncio.Transport
        self._answered: asyncio.Future[tuple[int, bytes]] | None = None
        self._parser: httptools.HttpResponseParser
        self._body = bytearray()

    async def send(self, request: bytes, timeout_s: float) -> tuple[int, bytes]:
        """Status and body.

        Raises:
            asyncio.TimeoutError, OSError, httptools.HttpParserError: there is none, or none in time.
        """
        if not self.kept:
            raise ConnectionResetError("the server has closed the connection")
        loop = asyncio.get_running_loop()
        self._answered = loop.create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._body.clear()
        self._transport.write(request)
        expiry = loop.call_later(timeout_s, self._fail, asyncio.TimeoutError())  # wait_for costs a task
        try:
            return await self._answered
        finally:
            expiry.cancel()

    def close(self) -> None:
        """Whoever waits has given up."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's only looks like one

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionResetError("the server has closed the connection"))

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        self.kept = self._parser.should_keep_alive()
        if self._answered and not self._answered.done():
            self._answered.set_result((self._parser.get_status_code(), bytes(self._body)))

    def _fail(self, error: Exception) -> None:
        self.kept = False
        if self._answered and not self._answered.done():
            self._answered.set_exception(error)
