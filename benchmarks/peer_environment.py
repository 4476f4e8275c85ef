"""Python environments of others, beside our own: made of exact pins when they are first needed, and again when the pins
or this Python change.

TORCH_INDEX_URL names the package index for torch, as for `make setup`.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from deploy.setup import LOCK, torch_index


class PeerError(Exception):
    """A peer cannot be run; the message says why and what to do."""


def peer_python(venv: Path, requirements: Path, *, beside_ours: bool = False) -> Path:
    """The interpreter of an environment that holds `requirements`, made first where there is none.

    Args:
        beside_ours: what this environment holds is seen too, behind what the requirements bring: a .pth file names its
            folder. Pip counts it as installed, so only what is missing, or pinned to another version, is downloaded;
            the requirements then name all of it.

    Raises:
        PeerError: a command of the installation failed.
    """
    python, stamp = venv / "bin" / "python", venv / "stamp"
    ours = sysconfig.get_path("purelib")
    made_of = sys.version.encode() + requirements.read_bytes()
    if beside_ours:
        made_of += ours.encode() + LOCK.read_bytes()
    digest = hashlib.sha256(made_of).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return python
    print(f"Environment {venv} of {requirements.name}, once", flush=True)
    _run([sys.executable, "-m", "venv", "--clear", str(venv)])
    if beside_ours:
        site = venv / "lib" / "python{}.{}".format(*sys.version_info[:2]) / "site-packages"
        (site / "beside.pth").write_text(f"{ours}\n")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--progress-bar", "on"]
    torch = [line for line in requirements.read_text().splitlines() if line.startswith("torch==")]
    if torch and (index := torch_index()):
        _run([*pip, "--no-deps", "--index-url", index, *torch])
    _run([*pip, *(["--no-deps"] if beside_ours else []), "--requirement", str(requirements)])
    stamp.write_text(digest)
    return python


def _run(command: list[str]) -> None:
    code = subprocess.run(command, env=os.environ | {"PIP_ROOT_USER_ACTION": "ignore"}).returncode
    if code:
        raise PeerError(
            f"`{' '.join(command)}` ended with {code}, its reason is above. Check the network and the disk, "
            "then run it again: the environment is made anew"
        )
