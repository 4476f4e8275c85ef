"""The counters are served wherever the gateway itself can listen."""

from __future__ import annotations

import urllib.request

import pytest

from server.metrics import serve_metrics
from tests.processes import free_ports


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_counters_are_served_at(host: str) -> None:
    address = f"{host}:{free_ports()}"
    end = serve_metrics(address)
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as page:
            assert b"braid_serving" in page.read()
    finally:
        end()
