"""What the machine lacks is said in one line with the remedy, before anything is started."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy import setup
from deploy.embedded import checks, gateway, stack, triton
from deploy.embedded.checks import Check
from features.database.engine import open_database
from features.settings import ROOT, Settings
from server.access.key_table import KeyTable
from server.access.scopes import Scope
from tests.certificates import Authority
from tests.processes import environment

ENORMOUS_BYTES = 1 << 62

LACKING: dict[str, tuple[Callable[[Path], Check], str]] = {
    "architecture": (lambda _: checks.architecture("aarch64"), "NVIDIA's container"),
    "old glibc": (lambda _: checks.glibc("2.31"), "Debian 12"),
    "no glibc": (lambda _: checks.glibc(""), "Debian 12"),
    "no runtime": (lambda folder: checks.runtime(folder), "make setup"),
    "no stub": (
        lambda _: checks.python_stub(triton.SERVER / "python_backend_stubs", (3, 14)),
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


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nowhere", ": Value error, is not host:port, such as"),
        ("127.0.0.1:", ": Value error, is not host:port, such as"),
        (":50051", ": Value error, is not host:port, such as"),
        ("127.0.0.1:99999", ": Value error, has a port above 65535"),
        ("127.0.0.1:0", "='127.0.0.1:0' must be host:port with a port from 1 to 65535"),
    ],
)
def test_gateway_address_that_cannot_be_read_is_named(settings: Settings, address: str, reason: str) -> None:
    result = _run("deploy.embedded", settings.model_copy(update={"gateway_address": address}), "up")
    assert result.returncode == 1
    assert result.stderr.startswith(f"BRAID_GATEWAY_ADDRESS{reason}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("host", ["no.such.host.invalid", "two..dots"])
def test_host_without_an_address_is_named_in_one_line(settings: Settings, host: str) -> None:
    address = f"{host}:{settings.gateway_address.rpartition(':')[2]}"
    lost = settings.model_copy(update={"gateway_address": address})
    reason = f"gateway {address}: this host has no address. Set BRAID_GATEWAY_ADDRESS"
    _refused(_run("deploy.embedded", lost, "up", BRAID_GATEWAY_ALLOW_PLAINTEXT="true"), lost, reason)


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("LOG_LEVEL", "loud", "BRAID_GATEWAY_LOG_LEVEL: Input should be"),
        ("TARGET_DELAY_MS", "-1", "BRAID_GATEWAY_TARGET_DELAY_MS: Input should be"),
        ("METRICS_ADDRESS", "127.0.0.1:99999", "BRAID_GATEWAY_METRICS_ADDRESS: Value error, has a port above 65535"),
        ("METRICS_ADDRESS", "localhost", "BRAID_GATEWAY_METRICS_ADDRESS: Value error, is not host:port, such as"),
        ("TRACE_ADDRESS", "127.0.0.1:99999", "BRAID_GATEWAY_TRACE_ADDRESS: Value error, has a port above 65535"),
        ("NOTICE_S", "inf", "BRAID_GATEWAY_NOTICE_S: Input should be a finite number"),
        ("TLS_CERTIFICATE", "/nope", "BRAID_GATEWAY_TLS_KEY is missing"),
    ],
)
def test_wrong_setting_of_the_gateway_is_one_line_before_anything_starts(
    settings: Settings, setting: str, value: str, reason: str
) -> None:
    _refused(_run("deploy.embedded", settings, "up", **{f"BRAID_GATEWAY_{setting}": value}), settings, reason)


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("DATABASE_URL", "mysql://x/y", "BRAID_DATABASE_URL: Value error, is no URL of a SQLite file or of PostgreSQL"),
        ("DATABASE_URL", "sqlite://", "BRAID_DATABASE_URL: Value error, is no URL of a SQLite file"),
        ("DATABASE_URL", "sqlite:///:memory:", "BRAID_DATABASE_URL: Value error, is no URL of a SQLite file"),
        ("DATABASE_URL", "postgresql://x:pass@y:z/w", "BRAID_DATABASE_URL cannot be read"),
        ("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/x", "BRAID_DATABASE_URL: postgresql://nobody@"),
        ("DATABASE_URL", "sqlite:////proc/no/dir/x.db", "the database's folder /proc/no/dir cannot be made"),
        ("MODEL_REPOSITORY", __file__, f"BRAID_MODEL_REPOSITORY: Value error, {__file__} is a file; name a folder"),
        ("HOME", f"{__file__}/home", f"BRAID_HOME: Value error, {__file__} is a file; name a folder"),
    ],
)
def test_up_names_a_database_or_a_folder_that_it_cannot_use_before_anything_starts(
    settings: Settings, variable: str, value: str, reason: str
) -> None:
    result = _run("deploy.embedded", settings, "up", **{f"BRAID_{variable}": value})
    _refused(result, settings, reason)
    assert "pass" not in result.stderr


def test_tls_files_are_read_before_anything_starts(settings: Settings) -> None:
    files = {"BRAID_GATEWAY_TLS_CERTIFICATE": "/nope", "BRAID_GATEWAY_TLS_KEY": "/nope"}
    refused = _run("deploy.embedded", settings, "up", **files)
    _refused(refused, settings, "BRAID_GATEWAY_TLS_CERTIFICATE=/nope: cannot be read")


def test_gateway_beyond_loopback_without_tls_is_refused_before_anything_starts(settings: Settings) -> None:
    number = settings.gateway_address.rpartition(":")[2]
    beyond = settings.model_copy(update={"gateway_address": f"0.0.0.0:{number}"})
    _refused(_run("deploy.embedded", beyond, "up"), beyond, f"BRAID_GATEWAY_ADDRESS=0.0.0.0:{number} is not loopback")


def test_gateway_beyond_loopback_with_tls_but_no_api_key_is_refused_before_anything_starts(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Authority(tmp_path / "certificates").sign("gateway")
    tls = {"BRAID_GATEWAY_TLS_CERTIFICATE": str(files.certificate), "BRAID_GATEWAY_TLS_KEY": str(files.key)}
    number = settings.gateway_address.rpartition(":")[2]
    beyond = settings.model_copy(update={"gateway_address": f"0.0.0.0:{number}"})
    reason = f"BRAID_GATEWAY_ADDRESS=0.0.0.0:{number} is not loopback and no API key exists"
    _refused(_run("deploy.embedded", beyond, "up", **tls), beyond, reason)
    engine = open_database(beyond.log_url)
    KeyTable(engine).create("shop window", [Scope.STOREFRONT], calls_per_s=0, burst=0)
    engine.dispose()
    for variable, file in tls.items():
        monkeypatch.setenv(variable, file)
    gateway.check_database(beyond)


@pytest.mark.parametrize(("above", "port"), [(-1, "metrics"), (0, "grpc"), (1, "http")])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_gateway_and_triton_on_one_port_are_refused_by_both_names(
    settings: Settings, host: str, above: int, port: str
) -> None:
    number = int(settings.gateway_address.rpartition(":")[2])
    crowded = settings.model_copy(update={"triton_address": f"{host}:{number + above}"})
    reason = f"BRAID_GATEWAY_ADDRESS 127.0.0.1:{number}: is Triton's {port} port as well"
    refused = _run("deploy.embedded", crowded, "up")
    _refused(refused, crowded, reason)
    assert "BRAID_TRITON_ADDRESS" in refused.stderr


def test_counters_on_the_port_of_another_are_refused_by_both_names(settings: Settings) -> None:
    for taken in ("gateway_address", "triton_address"):
        address = getattr(settings, taken)
        refused = _run("deploy.embedded", settings, "up", BRAID_GATEWAY_METRICS_ADDRESS=f"0.0.0.0:{address[-5:]}")
        _refused(refused, settings, "BRAID_GATEWAY_METRICS_ADDRESS 0.0.0.0:")
        assert f"BRAID_{taken.upper()}" in refused.stderr


def test_hosts_without_an_address_in_common_may_have_one_port(settings: Settings) -> None:
    number = settings.gateway_address.rpartition(":")[2]
    apart = settings.model_copy(update={"triton_address": f"127.0.0.2:{number}"})
    assert [check.line() for check in checks.failed(stack.requirements(apart))] == []


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nowhere", ": Value error, is not host:port, such as"),
        ("127.0.0.1:http", ": Value error, is not host:port, such as"),
        ("127.0.0.1:65535", "='127.0.0.1:65535' must be host:port with a port from 2 to 65534"),
    ],
)
def test_address_that_cannot_be_read_is_named(settings: Settings, address: str, reason: str) -> None:
    result = _run("deploy.embedded.triton", settings.model_copy(update={"triton_address": address}))
    assert result.returncode == 1
    assert result.stderr.startswith(f"BRAID_TRITON_ADDRESS{reason}")


def _refused(result: subprocess.CompletedProcess[str], settings: Settings, reason: str) -> None:
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(reason)
    assert len(result.stderr.splitlines()) == 1
    assert not stack.is_up(settings)
    assert not (settings.home / "run").exists()


def _run(module: str, settings: Settings, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment(settings, COLUMNS="200", **variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


def _file(folder: Path) -> Path:
    path = folder / "file"
    path.touch()
    return path
