"""The one module of the gateway that knows Triton: raw tensors over one gRPC channel, and its model control."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from features.schema import (
    FUSION_INPUTS,
    FUSION_MODEL,
    FUSION_OUTPUTS,
    ITEM_TOWER_INPUTS,
    ITEM_TOWER_MODEL,
    ITEM_TOWER_OUTPUTS,
    Tensor,
    output_name,
)
from server.direct import DIRECT
from server.errors import ModelUnavailable, Reason
from server.hydrate.fusion_request import FusionRequest, stacked_inputs
from server.infer.coalescer import Coalescer
from server.tracing import outgoing

Array = npt.NDArray[Any]
_DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4"), "UINT8": np.dtype("u1")}

Column = tuple[tuple[int, ...], bytes]
"""Shape and content of one input, batch dimension first."""

LOAD_S = 120.0
"""Time for Triton to load a model."""
NO_SERVER = ("connect", "socket closed", "server is stopping", "server not ready")
"""What UNAVAILABLE says where Triton is gone, or is going, and no model can be blamed for it."""
VANISHED_S = 5
"""What was sent and is not acknowledged for so long ends the connection: with keepalive, gRPC sets TCP_USER_TIMEOUT. By
itself Linux waits a quarter of an hour for a host that went without a word, and so for the one that took its place."""
PING_AFTER_S = 300
"""Triton takes no more pings than that where nothing else is sent, and the watch sends something every second."""
MAX_BATCH = 64
"""As both models' config.pbtxt has it."""


@dataclass(frozen=True, slots=True)
class FusionAnswer:
    """One row of `schema.FUSION_OUTPUTS`, in its order."""

    top_items: npt.NDArray[np.int32]
    top_scores: npt.NDArray[np.float32]
    candidate_scores: npt.NDArray[np.float32]
    interest: npt.NDArray[np.float32]
    long_weight: npt.NDArray[np.float32]
    recent_weights: npt.NDArray[np.float32]


class Triton:
    """One channel to one Triton."""

    def __init__(
        self, address: str, model_repository: Path, *, call_timeout_s: float, under_way: Callable[[], int] = lambda: 0
    ) -> None:
        """`under_way`: as in `Coalescer`."""
        options = [
            DIRECT,
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 250),
            ("grpc.keepalive_time_ms", 1000 * PING_AFTER_S),
            ("grpc.keepalive_timeout_ms", 1000 * VANISHED_S),
        ]
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._repository = model_repository
        self._call_timeout_s = call_timeout_s
        self._under_way = under_way
        self._pipes: dict[tuple[int, int, int], Coalescer[FusionRequest, FusionAnswer]] = {}
        self._max_batch = MAX_BATCH

    async def close(self) -> None:
        """Closes the channel; calls under way are cancelled."""
        await self._channel.close(grace=None)

    async def fuse(self, request: FusionRequest, timeout_s: float) -> FusionAnswer:
        """The model's answer to one request, which goes together with others of its shape.

        Raises:
            ModelUnavailable: Triton failed, or did not answer in `timeout_s`.
        """
        try:
            return await self._pipe(request).submit(request, timeout_s)
        except asyncio.TimeoutError:
            raise ModelUnavailable(f"no answer from Triton within {timeout_s:.3f} s", reason="slow") from None

    async def fuse_all(self, requests: Sequence[FusionRequest], timeout_s: float) -> list[FusionAnswer]:
        """`fuse` for several, in order; those of one shape go together.

        Raises:
            ModelUnavailable: as `fuse`, for any of them.
        """
        if timeout_s <= 0:
            raise ModelUnavailable("no time left to ask Triton", reason="slow")
        by_shape: dict[tuple[int, int, int], list[int]] = {}
        for place, request in enumerate(requests):
            by_shape.setdefault(request.shape_class, []).append(place)
        answers: dict[int, asyncio.Future[FusionAnswer]] = {}
        for places in by_shape.values():
            pipe = self._pipe(requests[places[0]])
            answers |= zip(places, pipe.send_all([requests[place] for place in places]), strict=True)
        try:
            in_order = (answers[place] for place in range(len(requests)))
            return await asyncio.wait_for(asyncio.gather(*in_order), timeout_s)
        except asyncio.TimeoutError:
            raise ModelUnavailable(f"no answer from Triton within {timeout_s:.3f} s", reason="slow") from None

    def _pipe(self, request: FusionRequest) -> Coalescer[FusionRequest, FusionAnswer]:
        key = request.shape_class
        pipe = self._pipes.get(key)
        if pipe is None:
            if len(self._pipes) > 64:  # shapes of releases that are gone
                self._pipes.clear()
            pipe = self._pipes[key] = Coalescer(
                self.fuse_batch, line="model", max_batch=self._max_batch, under_way=self._under_way
            )
        return pipe

    async def fuse_batch(self, requests: Sequence[FusionRequest]) -> list[FusionAnswer]:
        """Answers to requests of one shape class in one call.

        Raises:
            ModelUnavailable: Triton failed or timed out.
        """
        columns = [(array.shape, array.tobytes()) for array in stacked_inputs(requests)]
        outputs = await self._infer(FUSION_MODEL, requests[0].release, FUSION_INPUTS, FUSION_OUTPUTS, columns)
        return [FusionAnswer(*row) for row in zip(*outputs, strict=True)]

    async def item_vectors(
        self, release: int, content: npt.NDArray[np.int32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Vectors float32 (n, D) and biases float32 (n,) of content codes int32 (n, CONTENT_TOKENS).

        Raises:
            ModelUnavailable: Triton failed or timed out.
        """
        vectors, biases = [], []
        for start in range(0, len(content), self._max_batch):
            part = content[start : start + self._max_batch]
            vector, bias = await self._infer(
                ITEM_TOWER_MODEL, release, ITEM_TOWER_INPUTS, ITEM_TOWER_OUTPUTS, [(part.shape, part.tobytes())]
            )
            vectors.append(vector)
            biases.append(bias[:, 0])
        return np.concatenate(vectors), np.concatenate(biases)

    async def serves(self, model: str, release: int) -> bool:
        """Whether Triton says that this version is ready; only an inference shows that it is.

        Raises:
            ModelUnavailable: Triton cannot be reached.
        """
        try:
            request = service_pb2.ModelReadyRequest(name=model, version=str(release))
            return bool((await self._stub.ModelReady(request, timeout=self._call_timeout_s)).ready)
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
                return False
            raise _unavailable(model, release, error) from None

    async def hold(self, model: str, versions: Sequence[int]) -> None:
        """Loads exactly these versions of a model, and unloads its others once they are ready; what is there stays.

        Raises:
            ModelUnavailable: its config.pbtxt cannot be read, or Triton refused or failed.
        """
        try:
            if versions:
                await self._stub.RepositoryModelLoad(self._load_request(model, versions), timeout=LOAD_S)
            else:  # a load needs at least one
                request = service_pb2.RepositoryModelUnloadRequest(model_name=model)
                await self._stub.RepositoryModelUnload(request, timeout=LOAD_S)
        except grpc.aio.AioRpcError as error:
            raise _unavailable(model, max(versions, default=0), error) from None

    def _load_request(self, model: str, versions: Sequence[int]) -> service_pb2.RepositoryModelLoadRequest:
        path = self._repository / model / "config.pbtxt"
        try:
            config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        except (OSError, text_format.ParseError) as error:
            raise ModelUnavailable(f"{path} cannot be read ({error}); publish the release again") from None
        config.version_policy.Clear()
        config.version_policy.specific.versions.extend(versions)
        self._max_batch = max(1, min(self._max_batch, config.max_batch_size))
        request = service_pb2.RepositoryModelLoadRequest(model_name=model)
        request.parameters["config"].string_param = json_format.MessageToJson(config, preserving_proto_field_name=True)
        return request

    async def _infer(
        self,
        model: str,
        release: int,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        columns: Sequence[Column],
    ) -> list[Array]:
        request = service_pb2.ModelInferRequest()
        request.CopyFrom(_head(model, release, inputs, tuple(shape for shape, _ in columns)))
        request.raw_input_contents.extend(content for _, content in columns)
        try:
            response = await self._stub.ModelInfer(request, timeout=self._call_timeout_s, metadata=outgoing())
        except grpc.aio.AioRpcError as error:
            raise _unavailable(model, release, error) from None
        found = {output.name: number for number, output in enumerate(response.outputs)}
        arrays = []
        for number, tensor in enumerate(outputs):
            place = found[output_name(number, tensor)]
            shape = tuple(response.outputs[place].shape)
            arrays.append(np.frombuffer(response.raw_output_contents[place], _DTYPES[tensor.dtype]).reshape(shape))
        return arrays


@lru_cache(maxsize=256)
def _head(
    model: str, release: int, inputs: Sequence[Tensor], shapes: tuple[tuple[int, ...], ...]
) -> service_pb2.ModelInferRequest:
    """What calls with inputs of these shapes have in common: all but the contents."""
    request = service_pb2.ModelInferRequest(model_name=model, model_version=str(release))
    for tensor, shape in zip(inputs, shapes, strict=True):
        request.inputs.add(name=tensor.name, datatype=tensor.dtype, shape=shape)
    return request


def _unavailable(model: str, release: int, error: grpc.aio.AioRpcError) -> ModelUnavailable:
    code = error.code()
    reason: Reason = "failed"
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        reason = "slow"
    elif code == grpc.StatusCode.UNAVAILABLE and any(word in (error.details() or "").lower() for word in NO_SERVER):
        reason = "gone"
    return ModelUnavailable(f"Triton, {model} {release}: {code.name}: {error.details()}", reason=reason)
