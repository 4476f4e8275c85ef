"""What one caller, or one connection, can take of a gateway: the bounds that gRPC keeps for us."""

from __future__ import annotations

import logging
import resource

from server.settings import GatewaySettings

LOG = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
MAX_METADATA_BYTES = 8 * 1024
"""From here on gRPC refuses some calls, from twice as much on all."""
MAX_STREAMS_A_CONNECTION = 1_000
"""Calls under way on one connection; a client waits with more."""
MAX_UNSEEN_CALLS = 512
"""Calls that gRPC holds until the event loop takes them in. It drops more than that itself: a longer line is of calls
whose callers have given up by their turn."""
HANDSHAKE_S = 10
"""For TLS and HTTP/2's first words; who says nothing is cut off."""
PING_AFTER_S, PONG_WITHIN_S = 60, 20
"""A connection on which nothing comes is asked whether somebody is there."""


RESERVED_DESCRIPTORS = 256
"""Not for callers: database, stores, Triton and logs open files and connections of their own, also after a fault."""


def server_options(own: GatewaySettings) -> list[tuple[str, int]]:
    """gRPC's options of the server."""
    return [
        ("grpc.so_reuseport", int(own.share_port)),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.server.max_pending_requests", MAX_UNSEEN_CALLS // 2),  # from here on it drops some
        ("grpc.server.max_pending_requests_hard_limit", MAX_UNSEEN_CALLS),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * MAX_METADATA_BYTES),
        ("grpc.max_concurrent_streams", MAX_STREAMS_A_CONNECTION),
        ("grpc.max_allowed_incoming_connections", _most_connections(own)),
        ("grpc.server_handshake_timeout_ms", 1000 * HANDSHAKE_S),
        ("grpc.keepalive_time_ms", 1000 * PING_AFTER_S),
        ("grpc.keepalive_timeout_ms", 1000 * PONG_WITHIN_S),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def _most_connections(own: GatewaySettings) -> int:
    """As many as wanted, or as the descriptors of this process allow."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY or own.max_connections + RESERVED_DESCRIPTORS <= descriptors:
        return own.max_connections
    most = max(1, descriptors - RESERVED_DESCRIPTORS)
    LOG.warning(
        "BRAID_GATEWAY_MAX_CONNECTIONS=%d: with %d descriptors the gateway takes %d connections; raise `ulimit -Hn`",
        own.max_connections,
        descriptors,
        most,
    )
    return most


def allow_descriptors() -> None:
    """Takes as many file descriptors as the machine lets this process have: a connection needs one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
