"""The peer's own Python: .venv-peer in the clone, holding what requirements.txt beside this file pins.

    python -m benchmarks.quality.peer.environment

RecTools needs numpy 1 up to Python 3.12 and Feast needs numpy 2, so one environment cannot hold both. It is made when
the peer is first run, about 1.5 GB, and again when the pins or this Python change. TORCH_INDEX_URL names the package
index for torch, as for `make setup`.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from deploy.setup import ROOT, torch_index

VENV = ROOT / ".venv-peer"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


class PeerError(Exception):
    """The peer cannot be run; the message says why and what to do."""


def peer_python(venv: Path = VENV, requirements: Path = REQUIREMENTS) -> Path:
    """The interpreter of an environment that holds `requirements`, made first where there is none.

    Raises:
        PeerError: a command of the installation failed.
    """
    python, stamp = venv / "bin" / "python", venv / "stamp"
    digest = hashlib.sha256(sys.version.encode() + requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return python
    print(f"Environment {venv} with RecTools, once", flush=True)
    _run([sys.executable, "-m", "venv", "--clear", str(venv)])
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--progress-bar", "on"]
    torch = [line for line in requirements.read_text().splitlines() if line.startswith("torch==")]
    if torch and (index := torch_index()):
        _run([*pip, "--no-deps", "--index-url", index, *torch])
    _run([*pip, "--requirement", str(requirements)])
    stamp.write_text(digest)
    return python


def _run(command: list[str]) -> None:
    code = subprocess.run(command, env=os.environ | {"PIP_ROOT_USER_ACTION": "ignore"}).returncode
    if code:
        raise PeerError(
            f"`{' '.join(command)}` ended with {code}, its reason is above. Check the network and the disk, "
            "then run it again: the environment is made anew"
        )


if __name__ == "__main__":
    try:
        print(peer_python())
    except PeerError as error:
        sys.exit(str(error))
