"""The connection to Triton ends soon after Triton's host has vanished: the kernel is told so of its socket."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2

from server.infer.triton import VANISHED_S, Triton


def patience_ms(port: int) -> list[int]:
    """How long what was sent may stay unacknowledged, on each of this process's connections to a port (0: Linux')."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as connection:
            if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.getpeername()[1] == port:
                found.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    return found


async def test_what_tritons_host_does_not_acknowledge_ends_the_connection(tmp_path: Path) -> None:
    async def ready(_request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        response: bytes = service_pb2.ModelReadyResponse(ready=True).SerializeToString()
        return response

    server = grpc.aio.server()
    handlers = {"ModelReady": grpc.unary_unary_rpc_method_handler(ready)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    triton = Triton(f"127.0.0.1:{port}", tmp_path, call_timeout_s=5.0)
    assert await triton.serves("fusion", 1)
    assert patience_ms(port) == [1000 * VANISHED_S]
    await triton.close()
    await server.stop(None)
