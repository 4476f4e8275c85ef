"""Whether a stack runs the code that lies here: a program keeps what it read when it was started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.embedded.stack import Program
from features.settings import ROOT

FOLDERS = ("deploy", "features", "proto", "server")
KINDS = (".py", ".conf")


def told(programs: Sequence[Program], root: Path = ROOT) -> list[str]:
    """A line where a program was started before the code changed: which file changed last, and what takes it in."""
    started = min((program.since for program in programs if program.pid), default=None)
    if started is None:
        return []
    changed, file = _newest(root)
    if changed <= started + 1:  # supervisord tells whole seconds
        return []
    return [f"It runs older code: {file.relative_to(root)} has changed since it was started. Take it in: make down up"]


def _newest(root: Path) -> tuple[float, Path]:
    """When code or packages changed last, and the file."""
    code = (file for folder in FOLDERS for file in (root / folder).rglob("*") if file.suffix in KINDS)
    packages = root / ".venv" / "stamps" / "packages"
    files = [*code, *([packages] if packages.exists() else [])]
    return max((file.stat().st_mtime, file) for file in files)
