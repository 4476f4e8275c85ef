"""Cuts off who calls and takes no answers.

HTTP/2 lets a client say that it has no room for an answer. gRPC keeps the call until it has, however long that takes,
and grpc.aio has no way for a server to end it: six connections would hold every call that a gateway takes. Their
connection is all that can be ended. Who does not read from the connection at all is cut off by the kernel, since
keepalive sets TCP_USER_TIMEOUT.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Collection
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import unquote

LOG = logging.getLogger(__name__)

PROMPT_S = 0.25
LONGEST_S = 10.0
MAX_LATE = 64
"""Answers that wait longer than `PROMPT_S` at a time; of more, the callers of the oldest are cut off."""
LOOK_S = 0.25
"""Between two looks at those that are late: one takes a few microseconds a connection. What was late only because this
process was is taken by the first."""

Door = tuple[str, int]


class Untaken:
    """The answers that callers have yet to take; one object a process."""

    def __init__(self) -> None:
        self._late: dict[_Answer, float] = {}
        """Since when, the oldest first."""

    def given(self, peer: str) -> None:
        """The current task, a call's, returns its answer now; it ends when that is taken."""
        _Answer(self, peer)

    def late(self, answer: _Answer) -> None:
        """An answer waits for longer than it should."""
        if not self._late:
            self._look_later()
        self._late[answer] = time.monotonic()

    def taken(self, answer: _Answer) -> None:
        """An answer waits no longer."""
        self._late.pop(answer, None)

    def _look_later(self) -> None:
        asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        too_many, longest_s = len(self._late) - MAX_LATE, time.monotonic() - LONGEST_S
        late = enumerate(self._late.items())
        peers = {answer.peer for place, (answer, since_s) in late if place < too_many or since_s < longest_s}
        if peers and (count := shut_down(peers)):
            LOG.warning("cut off %d connections on which answers were not taken", count)
        if self._late:
            self._look_later()


class _Answer:
    """One answer on its way."""

    __slots__ = ("_timer", "_untaken", "peer")

    def __init__(self, untaken: Untaken, peer: str) -> None:
        self.peer = peer
        self._untaken = untaken
        self._timer = asyncio.get_running_loop().call_later(PROMPT_S, untaken.late, self)
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(self._end)

    def _end(self, _task: object) -> None:
        self._timer.cancel()
        self._untaken.taken(self)


def shut_down(peers: Collection[str]) -> int:
    """Ends this process's connections with these peers, as gRPC names them, and says how many there were.

    gRPC, which owns the sockets, sees that the other side has gone.
    """
    doors = {door for peer in peers if (door := _door(peer)) is not None}
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as connection:  # it may be no socket, or gone
            if _address(connection) in doors:
                connection.shutdown(socket.SHUT_RDWR)
                count += 1
    return count


def _address(connection: socket.socket) -> Door | None:
    """Of the other side, where both are reached by IP."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    host, port = connection.getpeername()[:2]
    return _plain(host), port


def _door(peer: str) -> Door | None:
    """Of `ipv4:host:port` or `ipv6:[host]:port`, percent-encoded; None for a local socket."""
    kind, _, address = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    host, _, port = address.rpartition(":")
    return _plain(host.strip("[]")), int(port)


def _plain(host: str) -> str:
    """One way of writing an address: an IPv4 one that came through an IPv6 socket has two."""
    found = ip_address(host.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)
