"""A release whose files take long to read: a pipe in place of one stands in for a cold disk."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from braid.v1 import release_pb2 as pb
from features.database.engine import open_database
from features.releases.release import MANIFEST_FILE, RELEASE_FILES
from features.releases.release_table import ReleaseTable
from features.schema import FUSION_MODEL, MODULE_FILE
from features.settings import Settings
from tests.features.test_releases import manifest
from tests.server.client import gateway

LOAD = pb.LoadReleaseRequest(release=1, who="a person", why="a test")


@pytest.fixture
def slow_file(settings: Settings) -> Path:
    """The module of a recorded release, which is read as slowly as something is written to it."""
    nothing = hashlib.sha256().hexdigest()
    of_release = replace(manifest(1), files=dict.fromkeys(RELEASE_FILES, nothing))
    folder = settings.model_repository / FUSION_MODEL / "1"
    folder.mkdir(parents=True)
    for name in RELEASE_FILES:
        (folder / name).touch()
    (folder / MANIFEST_FILE).write_text(json.dumps(of_release.to_json()))
    (folder / MODULE_FILE).unlink()
    os.mkfifo(folder / MODULE_FILE)
    engine = open_database(settings.log_url)
    ReleaseTable(engine).record(1, of_release, "test", "made")
    engine.dispose()
    return folder / MODULE_FILE


def test_files_may_take_longer_to_read_than_the_database_may_to_answer(settings: Settings, slow_file: Path) -> None:
    with gateway(settings, write_budget_ms="500") as under_test, ThreadPoolExecutor(1) as threads:
        call = under_test.client.releases.LoadRelease.future(LOAD, timeout=60)
        writing = threads.submit(slow_file.open, "wb")  # returns once somebody reads
        with writing.result(30) as content:
            with pytest.raises(grpc.FutureTimeoutError):
                call.exception(timeout=1)
            content.write(b"not what was published")
        error = call.exception(timeout=30)
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION and "sha256 differs" in error.details()
