"""Writes requirements.lock: exact versions of everything that pyproject.toml's dependencies bring, for each Python.

    python -m deploy.lock            (or `make lock`; takes the newest versions that pyproject.toml allows)

Needs python3.10 to python3.13 on PATH. A version that differs between Pythons gets a marker. Local version tags, hashes
and indexes are left out, so that any index serves the same lock.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
MINORS = ("3.10", "3.11", "3.12", "3.13")
CUDA = re.compile(r"(nvidia|cuda)-.*|triton$")
"""What torch's CUDA build on PyPI brings along and its CPU build does without."""


def direct_requirements() -> list[str]:
    """The dependencies and the development group of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [*project["project"]["dependencies"], *project["dependency-groups"]["development"]]


def resolve(minor: str, requirements: list[str]) -> dict[str, str]:
    """Name to version of the whole set for one Python.

    Raises:
        SystemExit: that Python is missing, or pip finds no set that fits.
    """
    python = shutil.which(f"python{minor}")
    if python is None:
        raise SystemExit(f"python{minor} is not on PATH; the lock must be made for {', '.join(MINORS)} at once")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        pip = [f"{folder}/bin/python", "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", "--upgrade", "pip"], check=True)
        report = Path(folder, "report.json")
        flags = ["install", "--dry-run", "--quiet", "--ignore-installed", "--report", str(report)]
        if subprocess.run([*pip, *flags, *requirements]).returncode:
            raise SystemExit(f"pip finds no set for Python {minor}; its reasons are above")
        found = json.loads(report.read_text())["install"]
    versions = {entry["metadata"]["name"]: entry["metadata"]["version"].split("+")[0] for entry in found}
    normal = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in versions.items()}
    return {name: version for name, version in sorted(normal.items()) if not CUDA.match(name)}


def lock_lines(resolved: dict[str, dict[str, str]]) -> list[str]:
    """One line a package, or one for each version with the Pythons that take it."""
    wanted: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for minor, versions in resolved.items():
        for name, version in versions.items():
            wanted[name][version].append(minor)
    return [f"{name}=={version}{marker(minors)}" for name in sorted(wanted) for version, minors in wanted[name].items()]


def marker(minors: list[str]) -> str:
    """The environment marker for a run of `MINORS`, or for single ones; empty for all of them."""
    first, last = MINORS.index(minors[0]), MINORS.index(minors[-1])
    if last - first + 1 > len(minors):
        return " ; " + " or ".join(f'python_version == "{minor}"' for minor in minors)
    if first == last:
        return f' ; python_version == "{minors[0]}"'
    bounds = [f'python_version >= "{minors[0]}"'] if first > 0 else []
    bounds += [f'python_version <= "{minors[-1]}"'] if last < len(MINORS) - 1 else []
    return " ; " + " and ".join(bounds) if bounds else ""


def main() -> None:
    """Resolves for each Python and writes the lock."""
    requirements = direct_requirements()
    resolved = {}
    for minor in MINORS:
        print(f"Python {minor} …", file=sys.stderr)
        resolved[minor] = resolve(minor, requirements)
    head = "# Written by `make lock` from pyproject.toml for Python 3.10 to 3.13. Do not edit.\n"
    (ROOT / "requirements.lock").write_text(head + "\n".join(lock_lines(resolved)) + "\n")


if __name__ == "__main__":
    main()
