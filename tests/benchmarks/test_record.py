"""A file of figures says which code they are of."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import record


def git(folder: Path, *arguments: str) -> str:
    """What a command of git prints."""
    named = ["-c", "user.name=b", "-c", "user.email=b@example.com"]
    return subprocess.run(["git", *named, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_figures_name_the_commit_and_whether_files_differ_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(record, "ROOT", tmp_path)
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-qm", "one")
    expected = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert json.loads(record.write("a", {}).read_text())["commit"] == expected
    (tmp_path / "code.py").write_text("2")
    assert json.loads(record.write("b", {}).read_text())["commit"] == f"{expected}-dirty"


def test_outside_a_clone_no_commit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "ROOT", tmp_path)
    assert shutil.which("git") and record.commit() == ""
