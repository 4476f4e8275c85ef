"""Of the interpreters in PATH, set-up takes one that is built for speed before one that is not."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from deploy import setup
from features.settings import ROOT

FINDER = ROOT / "deploy" / "find_python.sh"
OLD = '[ -z "$2" ]'
"""Runs, and cannot read our code."""
BROKEN = "exit 127"


def interpreters(folder: Path, spoken: dict[str, str]) -> str:
    """A PATH of folders with an interpreter each, by `folder/name`, that does as the shell command says."""
    for place, command in spoken.items():
        path = folder / place
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{command}\n")
        path.chmod(0o755)
    folders = dict.fromkeys(str((folder / place).parent) for place in spoken)
    return os.pathsep.join(folders)


@pytest.mark.parametrize(
    ("spoken", "found"),
    [
        ({"a/python3.11": "echo usable", "b/python3.11": "echo quick"}, "b/python3.11"),
        ({"a/python3.11": "echo usable", "a/python3.12": "echo quick"}, "a/python3.12"),
        ({"a/python3.11": "echo usable", "b/python3.11": "echo usable"}, "a/python3.11"),
        ({"a/python3.11": "echo none", "b/python3": "echo usable"}, "b/python3"),
        ({"a/python3.11": BROKEN, "a/python3": OLD}, "a/python3"),
        ({"a/python3.11": BROKEN}, ""),
    ],
)
def test_the_first_of_the_fittest(tmp_path: Path, spoken: dict[str, str], found: str) -> None:
    environment = {"PATH": interpreters(tmp_path, spoken)}
    (tmp_path / "a").joinpath("dirname").symlink_to("/usr/bin/dirname")
    command = ["/bin/bash", str(FINDER)]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()
    assert printed == (str(tmp_path / found) if found else "")


def test_this_one_fits() -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    found = subprocess.run([str(FINDER)], env=environment, check=True, capture_output=True, text=True).stdout.strip()
    assert subprocess.run([found, "-c", ""], check=False).returncode == 0
    assert setup.fitness() in ("quick", "usable")


@pytest.mark.parametrize(
    ("variables", "quick"),
    [
        ({"CONFIG_ARGS": "'--prefix=/opt/python' '--enable-optimizations'", "prefix": "/opt/python"}, True),
        ({"CONFIG_ARGS": "'--enable-shared' '--prefix=/usr'", "prefix": "/usr"}, True),
        ({"CONFIG_ARGS": "'--enable-shared'", "prefix": "/opt/pyenv/versions/3.11.7"}, False),
        ({"prefix": "/opt/python"}, False),
    ],
)
def test_what_is_built_for_speed(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], quick: bool) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", variables.get)
    assert setup.built_for_speed() is quick
