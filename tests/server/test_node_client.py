"""A client in another language, which knows the .proto files alone, gets what the Python client gets."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from features.settings import ROOT
from tests.processes import required_binary
from tests.server.client import Client, RunningGateway

NODE = ROOT / "tests" / "node"


@pytest.fixture(scope="session")
def node() -> str:
    """The Node binary, with the client's locked packages installed."""
    npm = required_binary("npm", "npm")
    lock, installed = NODE / "package-lock.json", NODE / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        done = subprocess.run([npm, "ci", "--no-fund", "--no-audit"], cwd=NODE, capture_output=True, text=True)
        assert done.returncode == 0, f"npm ci failed:\n{done.stderr}"
    return required_binary("node", "nodejs")


def recommend(node: str, gateway: RunningGateway, **request: Any) -> dict[str, Any]:
    """What the Node client prints."""
    command = [node, str(Path(NODE, "recommend.mjs")), gateway.settings.gateway_address, json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_node_gets_the_answer_that_python_gets(node: str, released_shop: RunningGateway, client: Client) -> None:
    theirs = recommend(node, released_shop, user_id="user-1", page_size=5, filter={"in_stock_only": True})["response"]
    ours = json_format.MessageToDict(
        client.recommend("user-1", page_size=5, filter={"in_stock_only": True}), preserving_proto_field_name=True
    )
    assert [result["item_id"] for result in theirs["results"]] == [result["item_id"] for result in ours["results"]]
    assert [result["score"] for result in theirs["results"]] == pytest.approx(
        [result["score"] for result in ours["results"]], abs=1e-3
    )
    assert len(theirs["results"]) == 5
    assert (theirs["tier"], theirs["release"]) == (ours["tier"], ours["release"])
    assert theirs["attribution_token"]


def test_node_reads_why_a_request_is_refused(node: str, released_shop: RunningGateway) -> None:
    refusal = recommend(node, released_shop, user_id="user-1", page_size=101)
    assert refusal["code"] == "INVALID_ARGUMENT"
    assert "page_size" in refusal["details"]
    assert "grpc-status-details-bin" in refusal["trailers"]
