"""The embedded Triton serves TorchScript modules through our `pytorch` backend, as NVIDIA's LibTorch backend would."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import tritonclient.grpc as triton_client

from features.settings import Settings
from tests.conditions import eventually

CONFIG = """
name: "{name}"
platform: "pytorch_libtorch"
backend: "pytorch"
max_batch_size: 8
input [
  {{ name: "weights" data_type: TYPE_FP32 dims: [ -1 ] }},
  {{ name: "items" data_type: TYPE_INT32 dims: [ -1 ] }}
]
output [
  {{ name: "total__0" data_type: TYPE_FP32 dims: [ 1 ] }},
  {{ name: "shifted__1" data_type: TYPE_INT32 dims: [ -1 ] }}
]
dynamic_batching {{ }}
instance_group [ {{ kind: KIND_AUTO count: 1 }} ]
parameters {{ key: "INTRA_OP_THREAD_COUNT" value {{ string_value: "1" }} }}
"""


class Toy(torch.nn.Module):
    """Arguments stand in another order than in the configuration, to show that the names decide."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, items: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if bool((items == 13).any()):
            raise ValueError("thirteen")
        return (items * weights).sum(dim=1, keepdim=True), items + self.shift


def publish(repository: Path, name: str, version: int = 1, *, shift: int = 1) -> Path:
    """Writes a version of the toy into a model repository."""
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    (folder.parent / "config.pbtxt").write_text(CONFIG.format(name=name))
    torch.jit.script(Toy(shift)).save(str(folder / "model.pt"))
    digest = hashlib.sha256((folder / "model.pt").read_bytes()).hexdigest()
    (folder / "release.json").write_text(json.dumps({"files": {"model.pt": digest}}))
    return folder


@pytest.fixture(scope="module")
def client(triton: str) -> Iterator[triton_client.InferenceServerClient]:
    with triton_client.InferenceServerClient(triton) as opened:
        yield opened


@pytest.fixture(scope="module")
def toy(client: triton_client.InferenceServerClient, session_settings: Settings) -> str:
    publish(session_settings.model_repository, "toy")
    client.load_model("toy")
    return "toy"


def infer(
    client: triton_client.InferenceServerClient, model: str, items: list[list[int]], outputs: list[str] | None = None
) -> triton_client.InferResult:
    values = {"items": np.array(items, np.int32), "weights": np.full(np.shape(items), 0.5, np.float32)}
    inputs = []
    for name, value in values.items():
        tensor = triton_client.InferInput(name, list(value.shape), "INT32" if value.dtype == np.int32 else "FP32")
        inputs.append(tensor.set_data_from_numpy(value))
    wanted = [triton_client.InferRequestedOutput(name) for name in outputs] if outputs else None
    return client.infer(model, inputs, outputs=wanted)


def test_module_is_served_by_the_names_of_its_arguments(client: triton_client.InferenceServerClient, toy: str) -> None:
    result = infer(client, toy, [[1, 2, 3], [4, 5, 6]])
    assert result.as_numpy("total__0").tolist() == [[3.0], [7.5]]
    assert result.as_numpy("shifted__1").tolist() == [[2, 3, 4], [5, 6, 7]]


def test_only_requested_outputs_are_sent(client: triton_client.InferenceServerClient, toy: str) -> None:
    result = infer(client, toy, [[1, 2]], outputs=["total__0"])
    assert [output.name for output in result.get_response().outputs] == ["total__0"]


def test_concurrent_requests_of_different_lengths_get_their_own_answers(
    client: triton_client.InferenceServerClient, toy: str
) -> None:
    requests = [[[i] * (1 + i % 3)] * (1 + i % 2) for i in range(20, 120)]
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda items: infer(client, toy, items), requests))
    for items, result in zip(requests, results, strict=True):
        assert result.as_numpy("shifted__1").tolist() == (np.array(items) + 1).tolist()
        assert result.as_numpy("total__0")[:, 0].tolist() == [sum(row) / 2 for row in items]


def test_error_of_a_module_reaches_its_caller_and_the_next_request_works(
    client: triton_client.InferenceServerClient, toy: str
) -> None:
    with pytest.raises(triton_client.InferenceServerException, match="thirteen"):
        infer(client, toy, [[13]])
    assert infer(client, toy, [[1]]).as_numpy("shifted__1").tolist() == [[2]]


def test_module_that_is_not_the_manifests_is_refused(
    client: triton_client.InferenceServerClient, session_settings: Settings
) -> None:
    folder = publish(session_settings.model_repository, "tampered")
    torch.jit.script(Toy(2)).save(str(folder / "model.pt"))
    with pytest.raises(triton_client.InferenceServerException, match="sha256"):
        client.load_model("tampered")
    assert client.is_server_ready()


def test_module_without_a_manifest_is_refused(
    client: triton_client.InferenceServerClient, session_settings: Settings
) -> None:
    (publish(session_settings.model_repository, "unsigned") / "release.json").unlink()
    with pytest.raises(triton_client.InferenceServerException, match="release.json is missing"):
        client.load_model("unsigned")
    assert client.is_server_ready()


def test_config_that_names_other_inputs_than_the_module_is_refused(
    client: triton_client.InferenceServerClient, session_settings: Settings
) -> None:
    folder = publish(session_settings.model_repository, "misnamed")
    config = folder.parent / "config.pbtxt"
    config.write_text(config.read_text().replace('"weights"', '"weight"'))
    with pytest.raises(triton_client.InferenceServerException, match="must name the same inputs"):
        client.load_model("misnamed")


def test_second_version_is_served_beside_the_first(
    client: triton_client.InferenceServerClient, session_settings: Settings
) -> None:
    config = publish(session_settings.model_repository, "twice", 1, shift=1).parent / "config.pbtxt"
    client.load_model("twice")
    publish(session_settings.model_repository, "twice", 2, shift=2)
    config.write_text(config.read_text() + "version_policy { specific { versions: [ 1, 2 ] } }")
    client.load_model("twice")
    eventually(lambda: client.is_model_ready("twice", "2"), within_s=30)
    for version in (1, 2):
        tensor = triton_client.InferInput("items", [1, 1], "INT32").set_data_from_numpy(np.zeros((1, 1), np.int32))
        weight = triton_client.InferInput("weights", [1, 1], "FP32").set_data_from_numpy(np.ones((1, 1), np.float32))
        result = client.infer("twice", [tensor, weight], model_version=str(version))
        assert result.as_numpy("shifted__1").tolist() == [[version]]


def test_a_version_that_is_dropped_gives_way_to_those_that_serve(
    client: triton_client.InferenceServerClient, session_settings: Settings
) -> None:
    module = str(publish(session_settings.model_repository, "leaving") / "model.pt")
    client.load_model("leaving")
    (process,) = [it for it in psutil.process_iter(["cmdline"]) if module in (it.info["cmdline"] or [])]
    serving = process.nice()
    with ThreadPoolExecutor(1) as caller:
        caller.submit(client.unload_model, "leaving")
        eventually(lambda: process.nice() == serving + 10, what="its low priority")
