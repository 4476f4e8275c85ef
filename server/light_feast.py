"""Imports Feast without what makes it heavy: 4 s of CPU and 180 MB that a gateway has no use for.

Feast imports torch wherever it is installed, and rewrites its own modules at import to check types while it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typeguard


@contextmanager
def light_imports() -> Iterator[None]:
    """Within it, `import feast` finds no torch and a `typeguard.typechecked` that does nothing."""
    torch, typechecked = sys.modules.get("torch"), typeguard.typechecked
    sys.modules["torch"] = None  # type: ignore[assignment]
    typeguard.typechecked = _unchecked
    try:
        yield
    finally:
        typeguard.typechecked = typechecked
        del sys.modules["torch"]
        if torch is not None:
            sys.modules["torch"] = torch


def _unchecked(target: Any = None, **_: object) -> Any:
    """The decorator `typechecked`, bare or with options."""
    return _unchecked if target is None else target
