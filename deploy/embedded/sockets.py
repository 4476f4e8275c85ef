"""Where a shop's stack has its local sockets."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from features.settings import Settings

LONGEST_SOCKET_PATH = 100
"""Linux takes 107 bytes, and supervisord first binds the path with its process id behind it."""


def control_socket(settings: Settings) -> Path:
    """supervisord's socket, in the shop's run folder, or under a short name where that path would be too long."""
    return _short(settings.home.resolve() / "run" / "supervisor.sock")


def gateway_socket(settings: Settings) -> Path:
    """The gateway's local socket, where it tells its health whatever TLS asks of others; its folder is its own."""
    return _short(settings.home.resolve() / "run" / "gateway") / "socket"


def _short(path: Path) -> Path:
    """A path for a socket or its folder: under a short name among the temporary files where it would be too long."""
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"braid-{os.getuid()}-{digest}{path.suffix}"
