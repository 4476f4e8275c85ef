"""Keeps the methods of generated services from being registered with grpc.aio one by one.

For each registered method grpc.aio (1.85) has a task that waits for its next call, and goes through all of these tasks
whenever one call comes: with the thirty methods of a gateway, a twentieth of its main thread's time under load. Methods
that are found by name share one task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc


class Unregistered:
    """In place of the server, for the generated functions `add_…Servicer_to_server`."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler[Any, Any]]) -> None:
        """As the server's."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Does nothing: the same methods are among the generic handlers."""
