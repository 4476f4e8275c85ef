"""Set-up takes torch from where it is smallest, does nothing twice, and names what stopped it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deploy import setup
from features.settings import ROOT


class Index(BaseHTTPRequestHandler):
    """A package index that answers anything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output clean."""


def test_index_of_the_environment_is_taken_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_INDEX_URL", "https://example.invalid/torch")
    assert setup.torch_index() == "https://example.invalid/torch"


def test_cpu_index_is_taken_where_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_INDEX_URL", raising=False)
    with HTTPServer(("127.0.0.1", 0), Index) as server:
        monkeypatch.setattr(setup, "CPU_INDEX", f"http://127.0.0.1:{server.server_port}/whl/cpu")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        assert setup.torch_index() == setup.CPU_INDEX
        server.shutdown()
        thread.join()


def test_configured_indexes_are_taken_where_the_cpu_index_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_INDEX_URL", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and says nothing
        monkeypatch.setattr(setup, "CPU_INDEX", f"http://127.0.0.1:{silent.getsockname()[1]}/whl/cpu")
        started = time.monotonic()
        assert setup.torch_index() == ""
        assert time.monotonic() - started < 5


def test_second_set_up_does_nothing() -> None:
    subprocess.run([sys.executable, "deploy/setup.py"], cwd=ROOT, check=True, timeout=280)
    second = subprocess.run([sys.executable, "deploy/setup.py"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert second.stdout == ""


def test_generated_stubs_import_from_anywhere(tmp_path: Path) -> None:
    command = "from braid.v1 import recommendation_pb2, recommendation_pb2_grpc; import features, server"
    subprocess.run([str(setup.PYTHON), "-c", command], cwd=tmp_path, check=True)


def test_failed_command_says_which_and_that_set_up_can_go_on() -> None:
    with pytest.raises(setup.SetupError, match=r"pip install.*no-such-file.*make setup again"):
        setup._pip("install", "--requirement", "no-such-file.txt")


def test_an_environment_that_was_interrupted_while_it_was_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".venv"
    for name, path in (("VENV", folder), ("PYTHON", folder / "bin" / "python"), ("STAMPS", folder / "stamps")):
        monkeypatch.setattr(setup, name, path)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)  # pip comes last
    setup.make_venv()
    subprocess.run([str(setup.PYTHON), "-m", "pip", "--version"], check=True)
    made = setup.PYTHON.lstat()
    setup.make_venv()
    assert setup.PYTHON.lstat() == made


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with our Makefile alone, whose set-up says which Python it was given."""
    (tmp_path / "Makefile").symlink_to(ROOT / "Makefile")
    (tmp_path / "proto").mkdir()
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "setup.py").write_text("import sys; print(sys.executable)")
    finder = tmp_path / "deploy" / "find_python.sh"
    finder.write_text(f"#!/bin/sh\necho {sys.executable}\n")
    finder.chmod(0o755)
    return tmp_path


def make(clone: Path, target: str) -> str:
    """What it prints, also where these tests are run by make."""
    command, own = ["make", target], {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(command, cwd=clone, env=own, check=True, capture_output=True, text=True).stdout.strip()


def test_what_set_up_began_can_be_cleaned_away(clone: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(clone / ".venv")], check=True)
    make(clone, "clean")
    assert not (clone / ".venv").exists()


def test_an_environment_whose_python_the_system_has_replaced_is_made_again_or_cleaned_away(clone: Path) -> None:
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "stamps").mkdir()
    (clone / ".venv" / "stamps" / "packages").touch()
    (clone / ".venv" / "bin" / "python").symlink_to("/usr/bin/python3.9-of-before")
    assert make(clone, "setup") == sys.executable
    make(clone, "clean")
    assert not (clone / ".venv").exists()
