"""The whole stack under its supervisor: up, watched, healed, down; with nothing left behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import tritonclient.grpc as triton_client

from deploy.embedded import processes, sockets, stack, triton
from features.settings import ROOT, Settings
from tests.certificates import Authority
from tests.conditions import eventually
from tests.deploy.test_triton import publish
from tests.processes import environment, free_ports, tail

UP_WITHIN_S = 240


def braid(settings: Settings, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`python -m deploy.embedded …` for a shop."""
    return subprocess.run(
        [sys.executable, "-m", "deploy.embedded", *arguments],
        cwd=ROOT,
        env=environment(settings, COLUMNS="200", **variables),
        capture_output=True,
        text=True,
        timeout=UP_WITHIN_S + 30,
    )


def pid_of(settings: Settings, program: str) -> int:
    """Process id of a running program, else 0."""
    return next((entry.pid for entry in stack.programs(settings) if entry.name == program), 0)


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has collected yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def traces(settings: Settings) -> list[str]:
    """What is there of a shop's stack: processes and shared memory."""
    home, prefix = str(settings.home), triton.shared_memory_prefix(settings)
    found = [str(path) for path in Path("/dev/shm").glob(f"{prefix}*")]
    for process in psutil.process_iter(["pid", "cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if process.pid != os.getpid() and (home in line or prefix in line):
            found.append(line)
    return found


@pytest.fixture(scope="module")
def up(new_settings: Callable[..., Settings]) -> Iterator[Settings]:
    """A running stack of an empty shop."""
    settings = new_settings()
    started = braid(settings, "up", "--within", str(UP_WITHIN_S))
    try:
        assert started.returncode == 0, started.stdout + started.stderr + tail(stack.log_file(settings, "gateway"))
        yield settings
    finally:
        stopped = braid(settings, "down")
        assert stopped.returncode == 0, stopped.stderr
    assert traces(settings) == []


@pytest.mark.timeout(UP_WITHIN_S + 60)
def test_up_waits_until_the_gateway_serves(up: Settings) -> None:
    assert stack.health(up) == "SERVING"
    assert {program.name: program.state for program in stack.programs(up)} == dict.fromkeys(
        ("gateway", "stream", "triton", "triton-watch"), "RUNNING"
    )


def test_second_up_says_so_and_changes_nothing(up: Settings) -> None:
    before = stack.programs(up)
    again = braid(up, "up")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.startswith("Already up")
    assert [program.pid for program in stack.programs(up)] == [program.pid for program in before]


def test_code_that_is_newer_than_the_stack_is_told_with_what_takes_it_in(up: Settings) -> None:
    file = ROOT / "server" / "gateway.py"
    before = file.stat()
    os.utime(file)
    try:
        told = [braid(up, command).stdout.splitlines()[-1] for command in ("up", "status")]
    finally:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    line = "It runs older code: server/gateway.py has changed since it was started. Take it in: make down up"
    assert told == [line, line]
    assert "older code" not in braid(up, "up").stdout


def test_a_shop_beside_that_holds_the_ports_is_named_with_how_to_stop_it(
    up: Settings, new_settings: Callable[..., Settings]
) -> None:
    ports = {"gateway_address": up.gateway_address, "triton_address": up.triton_address}
    second, apart = new_settings(**ports), new_settings()
    told = f"The shop in {up.home} is up and holds the ports; stop it with: BRAID_HOME={up.home} make down\n"
    refused = braid(second, "up")
    assert refused.returncode == 1
    assert f"gateway {up.gateway_address}: Address already in use" in refused.stderr and refused.stderr.endswith(told)
    assert braid(second, "down").stdout == f"It was not up.\n{told}"
    assert braid(second, "status").stderr == f"Down. Start it with `make up`.\n{told}"
    assert braid(apart, "down").stdout == "It was not up.\n"
    assert stack.is_up(up)


def test_a_stack_whose_supervisor_has_the_number_that_an_ended_one_had_is_left_alone(
    up: Settings, settings: Settings
) -> None:
    left = settings.home / "run" / "supervisord.pid"
    left.parent.mkdir()
    left.write_text((up.home / "run" / "supervisord.pid").read_text())  # after a reboot another shop's has it
    before = stack.programs(up)
    assert braid(settings, "down").stdout == "It was not up.\n"
    assert stack.programs(up) == before


def test_status_shows_programs_and_health(up: Settings) -> None:
    shown = braid(up, "status")
    assert shown.returncode == 0
    assert all(name in shown.stdout for name in ("gateway", "stream", "triton", "SERVING", str(up.logs)))


def test_every_program_writes_its_log_in_one_place(up: Settings) -> None:
    logs = {path.name for path in up.logs.glob("*.log")}
    assert {"gateway.log", "stream.log", "supervisord.log", "triton.log"} <= logs


@pytest.mark.timeout(UP_WITHIN_S)
def test_a_triton_that_hangs_is_started_again(up: Settings) -> None:
    hung = pid_of(up, "triton")
    os.kill(hung, signal.SIGSTOP)
    eventually(lambda: pid_of(up, "triton") not in (0, hung), within_s=90, what="a new Triton")
    with triton_client.InferenceServerClient(up.triton_address) as client:
        eventually(client.is_server_live, within_s=60, what="the new Triton's answer")


@pytest.mark.parametrize("program", ["stream", "gateway"])
@pytest.mark.timeout(UP_WITHIN_S)
def test_program_that_is_killed_is_started_again(up: Settings, program: str) -> None:
    killed = pid_of(up, program)
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: pid_of(up, program) not in (0, killed), within_s=30, what=f"a new {program}")
    eventually(lambda: stack.health(up) == "SERVING", within_s=UP_WITHIN_S, what="health SERVING")


def test_killed_triton_comes_back_without_its_old_stubs(up: Settings) -> None:
    killed = pid_of(up, "triton")
    publish(up.model_repository, "toy")
    with triton_client.InferenceServerClient(up.triton_address) as client:
        client.load_model("toy")
        stubs = [process.pid for process in psutil.Process(killed).children(recursive=True)]
        assert stubs
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: pid_of(up, "triton") not in (0, killed), within_s=30, what="a new Triton")
        eventually(client.is_server_live, within_s=30, what="the new Triton's answer")
        assert [pid for pid in stubs if alive(pid)] == []
        client.load_model("toy")
        assert client.is_model_ready("toy")


@pytest.mark.timeout(UP_WITHIN_S + 60)
def test_program_that_keeps_ending_is_named_with_its_last_line_and_log(settings: Settings) -> None:
    failed = braid(settings, "up", "--within", str(UP_WITHIN_S), BRAID_ONLINE_STORE="punch cards")
    assert failed.returncode == 1
    assert "BRAID_ONLINE_STORE" in failed.stderr
    assert traces(settings) == []


@pytest.mark.timeout(3 * UP_WITHIN_S)
def test_what_a_killed_supervisor_leaves_running_is_found_and_ended(settings: Settings) -> None:
    def killed_supervisor() -> list[psutil.Process]:
        started = braid(settings, "up", "--within", str(UP_WITHIN_S))
        assert started.returncode == 0, started.stdout + started.stderr
        supervisor, *left = processes.of(settings)
        supervisor.kill()
        supervisor.wait()
        assert left
        return left

    try:
        left = killed_supervisor()
        assert "`make up` or `make down` ends them" in braid(settings, "status").stderr
        second = killed_supervisor()
        assert not any(alive(process.pid) for process in left)
        assert braid(settings, "down").stdout == "Down.\n"
        assert not any(alive(process.pid) for process in second)
    finally:
        braid(settings, "down")
    assert traces(settings) == []


@pytest.mark.parametrize("mutual", [False, True], ids=["TLS", "mutual TLS"])
@pytest.mark.timeout(UP_WITHIN_S + 60)
def test_health_is_seen_through_tls(settings: Settings, tmp_path: Path, mutual: bool) -> None:
    authority = Authority(tmp_path / "certificates")
    server = authority.sign("gateway")
    files = {"BRAID_GATEWAY_TLS_CERTIFICATE": str(server.certificate), "BRAID_GATEWAY_TLS_KEY": str(server.key)}
    if mutual:
        files["BRAID_GATEWAY_TLS_CLIENT_CA"] = str(authority.file)
    odd = settings.model_copy(update={"home": settings.home / "a shöp; 5 with spaces"})
    try:
        started = braid(odd, "up", "--within", str(UP_WITHIN_S), **files)
        assert started.returncode == 0, started.stdout + started.stderr + tail(stack.log_file(odd, "gateway"))
        assert "mutual TLS" in tail(stack.log_file(odd, "gateway")) or not mutual
        assert "SERVING" in braid(odd, "status").stdout
        closed = sockets.gateway_socket(odd).parent
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700, "what comes in here needs no certificate"
        killed = pid_of(odd, "gateway")
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: pid_of(odd, "gateway") not in (0, killed), within_s=30, what="a new gateway")
        eventually(lambda: stack.health(odd) == "SERVING", within_s=UP_WITHIN_S, what="health SERVING")
    finally:
        assert braid(odd, "down").returncode == 0
    assert not closed.exists()
    assert traces(odd) == []


@pytest.mark.timeout(3 * UP_WITHIN_S)
def test_who_starts_or_stops_at_the_same_time_takes_turns(new_settings: Callable[..., Settings]) -> None:
    settings = new_settings()
    try:
        with ThreadPoolExecutor(2) as beside:
            first, second = beside.map(lambda _: braid(settings, "up", "--within", str(UP_WITHIN_S)), range(2))
            assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
            before = pid_of(settings, "gateway")
            stopping = beside.submit(braid, settings, "down")
            eventually(lambda: is_being_stopped(settings), within_s=30, what="the end of the first stack")
            again = braid(settings, "up", "--within", str(UP_WITHIN_S))
            assert (stopping.result().returncode, again.returncode) == (0, 0), again.stderr
        assert stack.health(settings) == "SERVING"
        assert pid_of(settings, "gateway") not in (0, before)
    finally:
        braid(settings, "down")
    assert traces(settings) == []


def is_being_stopped(settings: Settings) -> bool:
    """Whether supervisord is there and takes no orders any more."""
    try:
        stack.programs(settings)
    except stack.StackError as error:
        return "is being stopped" in str(error)
    return False


def test_status_of_a_stack_that_is_down_is_an_error(settings: Settings) -> None:
    shown = braid(settings, "status")
    assert (shown.returncode, shown.stderr) == (1, "Down. Start it with `make up`.\n")


def test_down_of_a_stack_that_is_down_is_none(settings: Settings) -> None:
    stopped = braid(settings, "down")
    assert (stopped.returncode, stopped.stdout) == (0, "It was not up.\n")


def test_sockets_of_a_deep_home_have_short_paths(settings: Settings) -> None:
    deep = settings.model_copy(update={"home": settings.home / ("deep" * 20) / ("folder" * 10)})
    assert len(str(sockets.control_socket(deep))) <= sockets.LONGEST_SOCKET_PATH
    assert sockets.control_socket(deep) != sockets.control_socket(settings)
    assert sockets.control_socket(settings).parent in (settings.home / "run", Path("/tmp"))
    assert len(str(sockets.gateway_socket(deep))) <= 107
    assert sockets.gateway_socket(deep) != sockets.gateway_socket(settings)


def test_supervisor_starts_from_a_deep_home_with_odd_characters(settings: Settings) -> None:
    ports = free_ports(4)
    home = settings.home / "a shöp; with spaces" / ("deep" * 20)
    deep = settings.model_copy(update={"home": home, "triton_address": f"127.0.0.1:{ports + 2}"})
    stack.start(deep)
    try:
        eventually(lambda: pid_of(deep, "triton"), what="Triton's process")
    finally:
        assert stack.stop(deep)
    assert traces(deep) == []


def test_percent_sign_in_the_home_is_refused_in_one_line(settings: Settings) -> None:
    refused = braid(settings.model_copy(update={"home": settings.home / "100%"}), "up")
    assert refused.returncode == 1
    assert refused.stderr.startswith("supervisord cannot take a percent sign")
    assert len(refused.stderr.splitlines()) == 1
