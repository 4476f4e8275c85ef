"""A variable whose name is misspelt is heard of, and one that others set is not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from features.misspelt import nearest
from features.settings import ROOT, Settings, variables
from server.settings import GatewaySettings
from tests.processes import environment

ALL = [*variables(Settings), *variables(GatewaySettings)]


def stderr_of(settings: Settings, *command: str, **more: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=environment(settings, **more), capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()


def told(name: str, near: str) -> str:
    return f"{name} is set and no setting reads it: did you mean {near}?"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BRAID_ONLINESTORE", "BRAID_ONLINE_STORE"),
        ("BRAID_HOMES", "BRAID_HOME"),
        ("BRAID_DATABSE_URL", "BRAID_DATABASE_URL"),
        ("BRAID_GATEWAY_ADRESS", "BRAID_GATEWAY_ADDRESS"),
        ("BRAID_GATEWAY_TLS_CERT", "BRAID_GATEWAY_TLS_CERTIFICATE"),
        ("BRAID_GATEWY_TRACE_ADDRESS", "BRAID_GATEWAY_TRACE_ADDRESS"),
        ("BRAID_TEAM", None),
        ("BRAID_VERSION", None),
        ("BRAID_IMAGE_TAG", None),
    ],
)
def test_the_nearest_name_is_the_one_that_was_meant(name: str, meant: str | None) -> None:
    assert nearest(name, ALL) == meant


def test_no_setting_is_taken_for_another_of_the_same_process() -> None:
    assert len(set(ALL)) == len(ALL)
    assert {name for name in ALL if nearest(name, ALL) != name} == set()


@pytest.mark.parametrize(
    "command", [("features", "status"), ("training", "release", "list"), ("server", "keys", "list")]
)
def test_a_misspelt_variable_is_one_line_and_the_command_goes_on(settings: Settings, command: tuple[str, ...]) -> None:
    lines = stderr_of(settings, *command, BRAID_ONLINESTORE="redis", BRAID_TEAM="recommendations")
    assert lines == [told("BRAID_ONLINESTORE", "BRAID_ONLINE_STORE")]


def test_a_command_of_the_features_knows_the_gateways_variables_as_another_s(settings: Settings) -> None:
    gateway = {name: "1" for name in variables(GatewaySettings)}
    assert stderr_of(settings, "features", "status", **gateway) == []


def test_variables_that_an_orchestrator_sets_for_a_service_are_not_spoken_of(settings: Settings) -> None:
    injected = {}
    for service in ("BRAID_GATEWAY", "BRAID_TRITON", "BRAID_REDIS"):
        injected |= {
            f"{service}_SERVICE_HOST": "10.0.0.1",
            f"{service}_SERVICE_PORT": "50051",
            f"{service}_SERVICE_PORT_GRPC": "50051",
            f"{service}_PORT": "tcp://10.0.0.1:50051",
            f"{service}_PORT_50051_TCP": "tcp://10.0.0.1:50051",
            f"{service}_PORT_50051_TCP_ADDR": "10.0.0.1",
            f"{service}_PORT_50051_TCP_PORT": "50051",
            f"{service}_PORT_50051_TCP_PROTO": "tcp",
        }
    wrong = {"BRAID_GATEWAY_LOG_LEVEL": "loud"}  # ends the process once both kinds of settings were read
    (line,) = stderr_of(settings, "server", **injected, **wrong)
    assert line.startswith("BRAID_GATEWAY_LOG_LEVEL: ")


def test_the_gateways_warning_is_a_line_of_its_log(settings: Settings) -> None:
    misspelt = {"BRAID_GATEWAY_ALOW_PLAINTEXT": "true", "BRAID_ONLINESTORE": "redis"}
    number = settings.gateway_address.rpartition(":")[2]
    exposed = settings.model_copy(update={"gateway_address": f"0.0.0.0:{number}"})
    lines = [json.loads(line) for line in stderr_of(exposed, "server", **misspelt)[:2]]
    assert [line["level"] for line in lines] == ["WARNING", "WARNING"]
    assert [line["message"] for line in lines] == [
        told("BRAID_ONLINESTORE", "BRAID_ONLINE_STORE"),
        told("BRAID_GATEWAY_ALOW_PLAINTEXT", "BRAID_GATEWAY_ALLOW_PLAINTEXT"),
    ]


def test_make_up_names_a_misspelt_variable_of_the_gateway_on_the_terminal(settings: Settings) -> None:
    wrong = {"BRAID_GATEWAY_LOGLEVEL": "DEBUG", "BRAID_GATEWAY_ADDRESS": "127.0.0.1:0"}
    line, reason = stderr_of(settings, "deploy.embedded", "up", **wrong)
    assert line == told("BRAID_GATEWAY_LOGLEVEL", "BRAID_GATEWAY_LOG_LEVEL")
    assert reason.startswith("BRAID_GATEWAY_ADDRESS='127.0.0.1:0'")
