"""What the machine lacks is said in one line with the remedy, before anything is started."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy import setup
from deploy.embedded import checks, stack, triton
from deploy.embedded.checks import Check
from features.settings import ROOT, Settings
from tests.processes import environment

ENORMOUS_BYTES = 1 << 62

LACKING: dict[str, tuple[Callable[[Path], Check], str]] = {
    "architecture": (lambda _: checks.architecture("aarch64"), "NVIDIA's container"),
    "old glibc": (lambda _: checks.glibc("2.31"), "Debian 12"),
    "no glibc": (lambda _: checks.glibc(""), "Debian 12"),
    "no runtime": (lambda folder: checks.runtime(folder), "make setup"),
    "no stub": (
        lambda _: checks.python_stub(triton.server_folder(triton.RUNTIME) / "python_backend_stubs", (3, 14)),
        "3.11",
    ),
    "no libpython": (lambda _: checks.python_library("libpython3.99.so.1.0"), "apt-get install libpython3"),
    "small shared memory": (lambda folder: checks.shared_memory(folder, ENORMOUS_BYTES), "remount"),
    "no shared memory": (lambda folder: checks.shared_memory(folder / "missing"), "remount"),
    "full disk": (lambda folder: checks.disk(folder / "not/yet/there", ENORMOUS_BYTES), "BRAID_HOME"),
    "home is in a file": (lambda folder: checks.writable(_file(folder) / "home"), "BRAID_HOME"),
    "old Python": (lambda _: setup.python_version((3, 9)), "make setup PYTHON="),
    "no venv": (lambda _: setup.venv_module(("venv", "no_such_module")), "-venv"),
}


@pytest.mark.parametrize("lacking", LACKING)
def test_what_is_lacking_is_one_line_with_a_remedy(lacking: str, tmp_path: Path) -> None:
    check, remedy = LACKING[lacking][0](tmp_path), LACKING[lacking][1]
    assert not check.ok
    assert remedy in check.line()
    assert "\n" not in check.line()


def test_this_machine_has_what_it_needs(settings: Settings) -> None:
    assert [check.line() for check in checks.failed(stack.requirements(settings))] == []
    assert [check.line() for check in checks.failed(setup.requirements())] == []


def test_taken_port_is_named_with_its_variable(settings: Settings) -> None:
    host, _, number = settings.triton_address.rpartition(":")
    with socket.create_server((host, int(number) + 1)):
        result = _run("deploy.embedded.triton", settings)
    assert result.returncode == 1
    assert result.stderr.startswith(f"Triton's metrics port {host}:{int(number) + 1}: Address already in use")
    assert "BRAID_TRITON_ADDRESS" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_up_refuses_a_taken_gateway_port_and_leaves_nothing_running(settings: Settings) -> None:
    host, _, number = settings.gateway_address.rpartition(":")
    with socket.create_server((host, int(number))):
        result = _run("deploy.embedded", settings, "up")
    assert result.returncode == 1
    assert "BRAID_GATEWAY_ADDRESS" in result.stderr
    assert not stack.is_up(settings)


def test_check_shows_a_table_and_fails_with_the_machine(settings: Settings) -> None:
    assert _run("deploy.embedded", settings, "check").returncode == 0
    host, _, number = settings.gateway_address.rpartition(":")
    with socket.create_server((host, int(number))):
        result = _run("deploy.embedded", settings, "check")
    assert result.returncode == 1
    assert "BRAID_GATEWAY_ADDRESS" in result.stdout


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:http", "127.0.0.1:65535"])
def test_address_that_cannot_be_read_is_named(settings: Settings, address: str) -> None:
    result = _run("deploy.embedded.triton", settings.model_copy(update={"triton_address": address}))
    assert result.returncode == 1
    assert result.stderr.startswith(f"BRAID_TRITON_ADDRESS={address!r} must be host:port")


def _run(module: str, settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment(settings, COLUMNS="200"),
        capture_output=True,
        text=True,
        timeout=60,
    )


def _file(folder: Path) -> Path:
    path = folder / "file"
    path.touch()
    return path
