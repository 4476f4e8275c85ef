"""The files of the container profile fit each other, the settings, and the embedded profile; no Docker is needed."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import pytest
import yaml
from redis import Redis

from deploy.container import __main__ as container
from deploy.dashboard import DASHBOARD, dashboard
from deploy.embedded import triton
from features.settings import ROOT, Settings
from server.access.exposure import check_exposure
from server.settings import GatewaySettings
from tests.conditions import eventually
from tests.postgres import FOLDERS, new_cluster, serving
from tests.processes import environment, free_ports, required_binary, running

FOLDER = ROOT / "deploy" / "container"
TEXT = (FOLDER / "compose.yaml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
OURS = {"definitions", "stream", "gateway"}
KEYS = {
    *("build", "command", "depends_on", "environment", "healthcheck", "image", "ports", "restart", "shm_size"),
    *("stop_grace_period", "volumes"),
}
SECRET = re.compile(r"\$\{(\w+):\?[^}]+\}")


def read(name: str) -> Any:
    """A YAML file of the folder."""
    return yaml.safe_load((FOLDER / name).read_text())


def locked(package: str) -> tuple[int, ...]:
    """The version in requirements.lock."""
    found = re.search(rf"^{re.escape(package)}==([\d.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert found, package
    return tuple(map(int, found[1].split(".")))


def test_every_part_is_there_and_says_only_what_compose_knows() -> None:
    assert set(SERVICES) == OURS | {"postgres", "redis", "triton", "prometheus", "grafana"}
    for name, service in SERVICES.items():
        assert set(service) <= KEYS, name
    volumes = {entry.split(":")[0] for service in SERVICES.values() for entry in service.get("volumes", ())}
    assert {volume for volume in volumes if not volume.startswith(".")} == set(yaml.safe_load(TEXT)["volumes"])


def test_images_are_pinned_to_a_version() -> None:
    images = {service["image"] for name, service in SERVICES.items() if name not in OURS}
    images |= set(re.findall(r"^FROM (\S+)", (FOLDER / "braid.Dockerfile").read_text(), re.MULTILINE))
    assert len(images) == 6
    assert all(re.search(r":v?\d+\.\d+", image) for image in images), images


def test_triton_is_the_clients_version_with_a_libtorch_that_can_load_our_modules() -> None:
    stated = re.search(r"(\d\d\.\d\d) is Triton ([\d.]+),[^:]* LibTorch of (\d+\.\d+):", TEXT)
    assert stated
    assert SERVICES["triton"]["image"] == f"nvcr.io/nvidia/tritonserver:{stated[1]}-py3"
    assert tuple(map(int, stated[2].split("."))) == locked("tritonclient")
    assert tuple(map(int, stated[3].split("."))) >= locked("torch")[:2]


def test_each_part_has_a_health_check_and_waits_for_those_that_it_needs() -> None:
    checked = {name for name, service in SERVICES.items() if service.get("healthcheck")}
    assert checked == set(SERVICES) - {"definitions", "stream"}  # one ends, the other listens nowhere
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            ends = needed == "definitions"
            wanted = "service_completed_successfully" if ends else "service_healthy"
            assert how == {"condition": wanted}, (name, needed)
    assert set(SERVICES["gateway"]["depends_on"]) == {"definitions", "triton"}


def test_only_loopback_is_published() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(published) == 3
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in published), published


def test_ports_are_those_of_the_settings() -> None:
    defaults = Settings()
    inside = SERVICES["gateway"]["environment"]
    number = defaults.gateway_address.rpartition(":")[2]
    assert inside["BRAID_GATEWAY_ADDRESS"].endswith(f":{number}")
    assert SERVICES["gateway"]["ports"] == [f"127.0.0.1:{number}:{number}"]
    doors = triton.ports(defaults)
    for name, (_, port) in doors.items():
        assert f"--{name}-port={port}" in SERVICES["triton"]["command"]
    assert inside["BRAID_TRITON_ADDRESS"] == f"triton:{doors['grpc'][1]}"
    assert any(f":{doors['http'][1]}/" in part for part in SERVICES["triton"]["healthcheck"]["test"])


def test_triton_is_started_as_in_the_embedded_profile() -> None:
    own = set(triton.command(Settings(), Path("backends")))
    flags = {flag for flag in SERVICES["triton"]["command"][1:] if "-port=" not in flag and "repository" not in flag}
    assert flags and flags <= own


def test_variables_are_settings_with_values_that_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OURS:
        for variable, value in SERVICES[name]["environment"].items():
            monkeypatch.setenv(variable, SECRET.sub("x" * 40, value))
            if variable.startswith("BRAID_"):
                own, common = variable.removeprefix("BRAID_GATEWAY_").lower(), variable.removeprefix("BRAID_").lower()
                assert own in GatewaySettings.model_fields or common in Settings.model_fields, variable
    settings = Settings()
    check_exposure(settings.gateway_address, GatewaySettings(), any_key=False)
    assert (settings.online_store, settings.redis_url) == ("redis", "redis:6379")
    assert settings.log_url.startswith("postgresql://braid@postgres/")


def test_no_secret_stands_in_the_file_and_the_command_makes_each() -> None:
    named = {
        variable: value
        for service in SERVICES.values()
        for variable, value in service.get("environment", {}).items()
        if re.search("PASSWORD|KEY|SECRET|TOKEN", variable)
    }
    assert len(named) >= 4
    assert all(SECRET.fullmatch(value) for value in named.values()), named
    assert set(SECRET.findall(TEXT)) == set(container.SECRETS)


def test_every_file_that_is_named_is_there() -> None:
    build = SERVICES["gateway"]["build"]
    context = (FOLDER / build["context"]).resolve()
    assert context == ROOT and (context / build["dockerfile"]).exists()
    mounted = [entry.split(":")[0] for service in SERVICES.values() for entry in service.get("volumes", ())]
    assert all((FOLDER / path).exists() for path in mounted if path.startswith("."))
    assert all((FOLDER / "prometheus" / name).exists() for name in read("prometheus/prometheus.yaml")["rule_files"])
    copied = re.findall(r"^COPY (\S+) ", (FOLDER / "braid.Dockerfile").read_text(), re.MULTILINE)
    assert len(copied) > 5 and all((ROOT / path).exists() for path in copied)
    script = SERVICES["gateway"]["healthcheck"]["test"][2]
    assert (ROOT / script).exists()


def test_prometheus_asks_where_the_parts_answer_and_grafana_asks_prometheus() -> None:
    found = read("prometheus/prometheus.yaml")["scrape_configs"]
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in found}
    metrics = SERVICES["gateway"]["environment"]["BRAID_GATEWAY_METRICS_ADDRESS"].rpartition(":")[2]
    assert jobs == {"gateway": [f"gateway:{metrics}"], "triton": [f"triton:{triton.ports(Settings())['metrics'][1]}"]}
    (source,) = read("grafana/datasources/sources.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert {panel["datasource"]["uid"] for panel in dashboard()["panels"] if "datasource" in panel} == {source["uid"]}


def test_alarms_and_dashboard_of_a_new_version_need_no_new_container() -> None:
    mounted = [entry.split(":")[:2] for service in SERVICES.values() for entry in service.get("volumes", ())]
    ours = {inside: FOLDER / path for path, inside in mounted if path.startswith(".")}
    assert len(ours) == 3 and all(path.is_dir() for path in ours.values()), "a file that git replaces stays the old one"
    assert "--enable-feature=auto-reload-config" in SERVICES["prometheus"]["command"]
    (provider,) = read("grafana/dashboards/dashboards.yaml")["providers"]
    assert ours[provider["options"]["path"]] == DASHBOARD.parent
    assert SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == (
        f"{provider['options']['path']}/{DASHBOARD.name}"
    )


def test_a_gpu_is_asked_for_by_triton_alone() -> None:
    overlay = read("compose.gpu.yaml")["services"]
    assert list(overlay) == ["triton"]
    (device,) = overlay["triton"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_up_prints_its_command_and_makes_the_secrets_once(settings: Settings) -> None:
    def up() -> str:
        command = [sys.executable, "-m", "deploy.container", "up", "--dry-run"]
        done = subprocess.run(command, cwd=ROOT, env=environment(settings), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    printed = up()
    file = container.env_file(settings)
    words = printed.split()
    assert words[:2] == ["docker", "compose"] and words[-4:] == ["up", "--build", "--detach", "--wait"]
    assert all(Path(words[at + 1]).exists() for at, word in enumerate(words) if word in ("--file", "--env-file"))
    made = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {line.split("=")[0] for line in made.splitlines()} == set(container.SECRETS)
    assert up() == printed and file.read_text() == made
    assert not any(line.split("=")[1] in printed for line in made.splitlines())


def test_secrets_that_a_file_lacks_are_added_and_the_others_stay(settings: Settings) -> None:
    file = container.env_file(settings)
    file.parent.mkdir(parents=True)
    file.write_text("POSTGRES_PASSWORD=ours")  # of an older version, or a disk was full
    container.make_secrets(settings)
    first, *added = file.read_text().splitlines()
    assert first == "POSTGRES_PASSWORD=ours"
    assert {line.split("=")[0] for line in added} == set(container.SECRETS) - {"POSTGRES_PASSWORD"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_without_docker_the_command_is_printed_and_not_run(settings: Settings, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploy.container", "down"]
    env = environment(settings) | {"PATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("docker compose ") and "Not run" in done.stderr
    assert done.returncode == 0


@pytest.fixture
def page() -> Iterator[tuple[str, list[bytes]]]:
    """A page whose content the test writes."""
    content = [b""]

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content[0])

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/metrics", content
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("content", "code"), [(b"a 1\nbraid_serving 1.0\n", 0), (b"\nbraid_serving 0.0\n", 1)])
def test_the_gateways_health_check_reads_its_metrics(page: tuple[str, list[bytes]], content: bytes, code: int) -> None:
    page[1][0] = content
    script = FOLDER / "healthy.py"
    proxied = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    proxied["http_proxy"] = "http://127.0.0.1:1"  # as Docker tells its containers where its user has one
    assert subprocess.run([sys.executable, str(script), page[0]], env=proxied, timeout=30).returncode == code


def healthy(part: str, program: str, *own: str, **variables: str) -> bool:
    """Whether a part's health check says so; flags and variables put the test's addresses in the container's place."""
    name, *flags = SERVICES[part]["healthcheck"]["test"][1:]
    assert Path(program).name == name
    return subprocess.run([program, *own, *flags], env=variables, capture_output=True, timeout=30).returncode == 0


def test_a_postgresql_that_is_being_prepared_is_not_healthy() -> None:
    pg_isready = required_binary("pg_isready", "postgresql", *FOLDERS)
    with TemporaryDirectory(prefix="braid-") as place:
        folder = Path(place)
        cluster = new_cluster(folder)
        port = cluster.url.rpartition(":")[2].partition("/")[0]
        socket_alone = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"]
        with running([*cluster.command, *socket_alone], cluster.log, stop_signal=signal.SIGINT):
            eventually((folder / f".s.PGSQL.{port}").exists, what="PostgreSQL's socket")
            on_socket = [pg_isready, f"--host={folder}", f"--port={port}"]
            eventually(lambda: subprocess.run(on_socket).returncode == 0, what="PostgreSQL's answer on its socket")
            assert not healthy("postgres", pg_isready, PGHOST=place, PGPORT=port)
        with serving(cluster):
            assert healthy("postgres", pg_isready, PGHOST=place, PGPORT=port)


def test_a_redis_that_reads_its_file_is_not_healthy(tmp_path: Path) -> None:
    server, cli = (required_binary(name, "redis-server") for name in ("redis-server", "redis-cli"))
    port, log = free_ports(), tmp_path / "redis.log"
    command = [server, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(tmp_path), "--save", ""]
    with running(command, log), Redis(port=port) as client:
        eventually(client.ping, what="Redis' answer")
        client.mset({f"key-{number}": "value" for number in range(1_000)})
        client.save()
    slow = ["--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024"]
    with running([*command, *slow], log), Redis(port=port) as client:
        eventually(lambda: client.info("persistence")["loading"], what="the beginning of the reading")
        assert not healthy("redis", cli, "-p", str(port))
        client.config_set("key-load-delay", 0)
        eventually(lambda: healthy("redis", cli, "-p", str(port)), what="the end of the reading")


@pytest.mark.parametrize("part", ["triton", "prometheus", "grafana"])
def test_the_other_health_checks_ask_past_a_proxy_too(page: tuple[str, list[bytes]], part: str) -> None:
    program, *flags, asked = SERVICES[part]["healthcheck"]["test"][1:]
    assert asked.startswith("http://127.0.0.1:")
    command = [required_binary(program, program), *flags]
    proxied = {"PATH": os.environ["PATH"], "http_proxy": "http://127.0.0.1:1"}
    assert subprocess.run([*command, page[0]], env=proxied, timeout=30).returncode == 0
