"""RecTools' own Python: .venv-peer in the clone, holding what requirements.txt beside this file pins.

    python -m benchmarks.quality.peer.environment

RecTools needs numpy 1 up to Python 3.12 and Feast needs numpy 2, so one environment cannot hold both; this one takes
about 1.5 GB.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.peer_environment import PeerError, peer_python
from deploy.setup import ROOT

VENV = ROOT / ".venv-peer"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def rectools_python() -> Path:
    """Its interpreter, made first where there is none.

    Raises:
        PeerError: a command of the installation failed.
    """
    return peer_python(VENV, REQUIREMENTS)


if __name__ == "__main__":
    try:
        print(rectools_python())
    except PeerError as error:
        sys.exit(str(error))
