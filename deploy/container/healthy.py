"""Exit code 0 while the gateway whose metrics stand at a URL serves: a container's health check.

    python deploy/container/healthy.py http://127.0.0.1:9464/metrics

The standard library alone, so that a look every few seconds costs little.
"""

from __future__ import annotations

import sys
import urllib.request

TIMEOUT_S = 3


def serves(url: str) -> bool:
    """Whether the page says so."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy the environment names
    with direct.open(url, timeout=TIMEOUT_S) as page:
        return b"\nbraid_serving 1.0\n" in page.read()


if __name__ == "__main__":
    sys.exit(not serves(sys.argv[1]))
