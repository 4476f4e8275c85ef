"""Imports Feast without what makes it heavy; import this before `feast`.

Feast imports torch wherever it is installed (180 MiB in each process, for tensors that nobody here asks it for),
rewrites its own modules to check types while it runs (seconds of every start), and has prometheus_client keep every
counter of the process, and of all that it starts, in a file, which makes counting three times as slow. A process that
wants torch imports it before or after as usual.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import prometheus_client  # noqa: F401  (before Feast sets PROMETHEUS_…: its counters stay in memory)
import typeguard

_COUNTERS_IN_FILES = ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR")


def _unchecked(target: Any = None, **_: object) -> Any:
    """The decorator `typechecked`, bare or with options, that checks nothing."""
    return _unchecked if target is None else target


def _import_feast() -> None:
    modules: dict[str, Any] = sys.modules
    typechecked = typeguard.typechecked
    set_by_feast = [name for name in _COUNTERS_IN_FILES if name not in os.environ]
    without_torch = "torch" not in modules
    typeguard.typechecked = _unchecked
    if without_torch:
        modules["torch"] = None  # to the import system: there is none
    try:
        importlib.import_module("feast.torch_wrapper")
    finally:
        typeguard.typechecked = typechecked
        if without_torch:
            del modules["torch"]
        for name in set_by_feast:
            os.environ.pop(name, None)  # child processes would inherit it


_import_feast()
