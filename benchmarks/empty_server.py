"""A grpc.aio server whose one method does nothing: the ceiling for any Python gateway.

    python -m benchmarks.empty_server <port> <bytes of its answer>

Its messages are opaque bytes, so not even their parsing is paid for. It runs as the gateway does: one process, uvloop.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import grpc
import uvloop

METHOD = "/braid.benchmarks.Empty/Call"


async def serve(port: int, answer: bytes) -> None:
    """Serves on loopback until SIGTERM."""

    async def call(_request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return answer

    service, method = METHOD.strip("/").split("/")
    server = grpc.aio.server()
    handlers = {method: grpc.unary_unary_rpc_method_handler(call)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    await end.wait()
    await server.stop(None)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), bytes(int(sys.argv[2]))))
