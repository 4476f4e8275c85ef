"""Imports Feast without torch: import this before `feast`.

Feast imports torch wherever it is installed, for tensors that nobody here asks it for: 180 MiB and seconds in each
process. A process that wants torch itself imports it before or after as usual.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

if "torch" not in sys.modules:
    modules: dict[str, Any] = sys.modules
    modules["torch"] = None  # to the import system: there is none
    try:
        importlib.import_module("feast.torch_wrapper")
    finally:
        del modules["torch"]
