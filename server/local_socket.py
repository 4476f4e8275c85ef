"""A gateway's unix socket: takes this user's calls without TLS, those of the process itself and of its supervisor."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote


def target(path: Path) -> str:
    """gRPC's name for a unix socket, on both sides."""
    return f"unix:{quote(str(path))}"


class LocalSocket:
    """Where it is: at `path`, in a folder that is closed to others, or else in a temporary folder of its own."""

    def __init__(self, path: Path | None) -> None:
        self._folder: TemporaryDirectory[str] | None = None
        if path is None:
            self._folder = TemporaryDirectory(prefix="braid-probe-")
            path = Path(self._folder.name) / "gateway"
        self.path = path

    @property
    def target(self) -> str:
        """gRPC's name for it."""
        return target(self.path)

    def remove_folder(self) -> None:
        """Leaves no temporary folder behind; gRPC takes away the socket."""
        if self._folder is not None:
            self._folder.cleanup()
