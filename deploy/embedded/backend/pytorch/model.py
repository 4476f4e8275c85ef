"""Triton backend `pytorch`, written in Python: serves `<version>/model.pt` where there is no LibTorch backend.

It takes the same config.pbtxt as the LibTorch backend: inputs are named after the arguments of the module's `forward`,
output `NAME__i` is its i-th result, `INTRA_OP_THREAD_COUNT` sets the threads. model.pt must have the sha256 that the
release.json beside it holds.

It runs inside Triton's Python stub, which is compiled against numpy 1: tensors go in and out as DLPack, never as numpy.
Each version has a process of its own; one that is being loaded, or that ends, gives way to those that serve on the same
cores. In a server that has only just started nobody serves yet, and no time is to be lost: it may have been killed.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE = 10
"""Added to the nice value of what loads or ends: about a tenth of a core where all are busy."""
JUST_STARTED_S = 20.0
"""So long after its start a server loads what it is to serve first."""


def server_age_s() -> float:
    """How long ago Triton, this process's parent, started."""
    after_name = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    return uptime_s - int(after_name[19]) / os.sysconf("SC_CLK_TCK")


def patiently(work: Callable[[], T]) -> T:
    """Does a part of a load in a thread of low priority; on Linux each thread has its own."""
    if server_age_s() < JUST_STARTED_S:
        return work()
    with ThreadPoolExecutor(1, initializer=os.nice, initargs=(PATIENCE,)) as thread:
        return thread.submit(work).result()


patiently(lambda: importlib.import_module("torch"))  # most of a load: seconds of a core

import torch  # noqa: E402
import torch.utils.dlpack  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402

MODULE_FILE = "model.pt"
MANIFEST_FILE = "release.json"
Shapes = tuple[torch.Size, ...]


class TritonPythonModel:
    """One instance of one version of a model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the module.

        Raises:
            ValueError: the file is not the manifest's, or config.pbtxt does not fit the module. Triton refuses the
                load with this message and keeps serving the versions that it has.
        """
        config = json.loads(args["model_config"])
        module_path = Path(args["model_repository"]) / args["model_version"] / MODULE_FILE
        if threads := config["parameters"].get("INTRA_OP_THREAD_COUNT"):
            torch.set_num_threads(int(threads["string_value"]))
        self.module = patiently(lambda: load(module_path))
        self.inputs = input_order(self.module, [entry["name"] for entry in config["input"]], module_path)
        self.outputs = {entry["name"]: output_index(entry["name"]) for entry in config["output"]}
        self.batched = config["max_batch_size"] > 0

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers requests, those of equal shapes in one forward pass."""
        groups: dict[Shapes | int, list[int]] = defaultdict(list)
        tensors = [self._read(request) for request in requests]
        for i, values in enumerate(tensors):
            groups[tuple(value.shape[1:] for value in values) if self.batched else i].append(i)
        responses: list[Any] = [None] * len(requests)
        for members in groups.values():
            try:
                results = self._forward([tensors[i] for i in members])
            except RuntimeError as error:  # what TorchScript raises for anything inside the module
                for i in members:
                    responses[i] = pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
                continue
            for i, result in zip(members, results, strict=True):
                responses[i] = self._respond(requests[i], result)
        return responses

    def finalize(self) -> None:
        """Called when the version is dropped; Python and torch take half a second of a core to end."""
        os.nice(PATIENCE)

    def _read(self, request: Any) -> list[torch.Tensor]:
        return [
            torch.utils.dlpack.from_dlpack(pb_utils.get_input_tensor_by_name(request, name).to_dlpack())
            for name in self.inputs
        ]

    def _forward(self, members: list[list[torch.Tensor]]) -> list[list[torch.Tensor]]:
        """The outputs of each member, from one call of the module."""
        alone = len(members) == 1
        arguments = members[0] if alone else [torch.cat(values) for values in zip(*members, strict=True)]
        with torch.inference_mode():
            outputs = self.module(*arguments)
        if isinstance(outputs, torch.Tensor):
            outputs = (outputs,)
        if alone:
            return [list(outputs)]
        sizes = [values[0].shape[0] for values in members]
        return [list(parts) for parts in zip(*(output.split(sizes) for output in outputs), strict=True)]

    def _respond(self, request: Any, results: list[torch.Tensor]) -> Any:
        wanted = request.requested_output_names()
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor.from_dlpack(name, results[index].contiguous())
                for name, index in self.outputs.items()
                if name in wanted
            ]
        )


def load(module_path: Path) -> torch.jit.ScriptModule:
    """The module, once its file has been compared with the manifest.

    Raises:
        ValueError: as `verify`.
    """
    verify(module_path)
    module: torch.jit.ScriptModule = torch.jit.load(str(module_path), map_location="cpu").eval()
    return module


def verify(module_path: Path) -> None:
    """Compares the module file with the manifest beside it: TorchScript is code, and only a release's own runs here.

    Raises:
        ValueError: there is no manifest, it does not name the file, or the file is not the one that was published.
    """
    manifest_path = module_path.with_name(MANIFEST_FILE)
    if not manifest_path.exists():
        raise ValueError(f"{manifest_path} is missing: publish the release again")
    expected = json.loads(manifest_path.read_text())["files"].get(module_path.name)
    digest = hashlib.sha256()
    with module_path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise ValueError(
            f"{module_path} has sha256 {digest.hexdigest()}, {MANIFEST_FILE} says {expected}: publish the release again"
        )


def input_order(module: torch.jit.ScriptModule, names: list[str], module_path: Path) -> list[str]:
    """The configured inputs in the order of `forward`'s arguments.

    Raises:
        ValueError: config.pbtxt names other inputs than the module takes.
    """
    arguments = [argument.name for argument in module.forward.schema.arguments]  # type: ignore[attr-defined]
    arguments.remove("self")
    if sorted(arguments) != sorted(names):
        raise ValueError(f"{module_path} takes {arguments}, config.pbtxt has {names}: they must name the same inputs")
    return arguments


def output_index(name: str) -> int:
    """2 for `NAME__2`.

    Raises:
        ValueError: the name does not end so.
    """
    _, separator, index = name.rpartition("__")
    if not separator or not index.isdecimal():
        raise ValueError(f"output {name!r} in config.pbtxt must be named <name>__<index>, as LibTorch asks")
    return int(index)
