"""Looks for ids in the bytes of a file: `python -m features.erasure.search FILE`, the ids on stdin with NUL between.

Ends with 0 if one is found, 1 if none. An id is found inside a longer one too.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Sequence
from pathlib import Path


def holds(path: Path, ids: Sequence[bytes]) -> bool:
    """Whether one of the ids is among the bytes of the file."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(name) >= 0 for name in ids)


if __name__ == "__main__":
    found = holds(Path(sys.argv[1]), [name for name in sys.stdin.buffer.read().split(b"\0") if name])
    sys.exit(0 if found else 1)
