"""A wire between two processes that can be cut without a word: what a vanished host looks like to the other side."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress


class Wire:
    """Leads from its `address` to a target, both `host:port`, connection by connection."""

    def __init__(self, target: str, sockets: ExitStack) -> None:
        host, _, port = target.rpartition(":")
        self._target, self._sockets, self._cut = (host, int(port)), sockets, threading.Event()
        self._listener = sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Nothing comes through the connections of now any more, and nobody is told; new ones lead to the target."""
        self._cut.set()
        self._cut = threading.Event()

    def _accept(self) -> None:
        with suppress(OSError):  # the end
            while True:
                here = self._sockets.enter_context(self._listener.accept()[0])
                there = self._sockets.enter_context(socket.create_connection(self._target))
                for source, sink in ((here, there), (there, here)):
                    threading.Thread(target=_carry, args=(source, sink, self._cut), daemon=True).start()


@contextmanager
def wire(target: str) -> Iterator[Wire]:
    """Closed at the end."""
    with ExitStack() as sockets:
        yield Wire(target, sockets)


def _carry(source: socket.socket, sink: socket.socket, cut: threading.Event) -> None:
    with suppress(OSError):
        while content := source.recv(65_536):
            if cut.is_set():
                return
            sink.sendall(content)
        if not cut.is_set():
            sink.shutdown(socket.SHUT_WR)
