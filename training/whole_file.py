"""Writes what torch has serialised: whole, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path


def write_whole(path: Path, serialise: Callable[[BytesIO], object]) -> None:
    """Writes a file beside and renames it into place.

    Args:
        serialise: writes the content; torch itself may end the process where a disk is full, so not to the disk.

    Raises:
        OSError: the disk is full, or the folder cannot be written; what was there stays.
    """
    content = BytesIO()
    serialise(content)
    beside = path.with_name(f"{path.name}.part")
    try:
        beside.write_bytes(content.getbuffer())
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
    beside.replace(path)
