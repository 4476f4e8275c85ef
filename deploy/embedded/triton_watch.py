"""Ends a Triton that no longer answers, so that supervisord starts it again.

    python -m deploy.embedded.triton_watch

Every `EVERY_S` it has Triton infer: the item tower, which is small, or where that is not loaded it asks whether the
server lives. Only silence counts: what Triton answers with an error, the gateway cures by loading the model again.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import suppress

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from deploy.embedded import stack
from features.schema import CONTENT_TOKENS, ITEM_TOWER_INPUTS, ITEM_TOWER_MODEL
from features.settings import Settings, load_settings
from server.direct import DIRECT

LOG = logging.getLogger(__name__)

EVERY_S = 2.0
SILENCE_S = 3.0
"""An inference of one item takes a millisecond; so long, only what hangs or is starved."""
MOST_SILENCES = 3
"""In a row."""
GRACE_S = 20.0
"""A Triton that was started so lately is left alone."""


def open_channel(settings: Settings) -> grpc.Channel:
    """To this shop's Triton."""
    return grpc.insecure_channel(settings.triton_address, options=[DIRECT])


def answers(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> bool:
    """Whether Triton says anything in time."""
    (tensor,) = ITEM_TOWER_INPUTS
    request = service_pb2.ModelInferRequest(model_name=ITEM_TOWER_MODEL)
    request.inputs.add(name=tensor.name, datatype=tensor.dtype, shape=(1, CONTENT_TOKENS))
    request.raw_input_contents.append(np.zeros(CONTENT_TOKENS, np.int32).tobytes())
    try:
        if stub.ModelReady(service_pb2.ModelReadyRequest(name=ITEM_TOWER_MODEL), timeout=SILENCE_S).ready:
            stub.ModelInfer(request, timeout=SILENCE_S)
        else:
            stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=SILENCE_S)
    except grpc.RpcError as error:
        return error.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
    return True


def main() -> None:
    """For ever."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    settings, silences = load_settings(), 0
    with open_channel(settings) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        while True:
            time.sleep(EVERY_S)
            silences = 0 if answers(stub) else silences + 1
            if silences < MOST_SILENCES:
                continue
            with suppress(stack.StackError):  # the stack is being stopped
                for program in stack.programs(settings):
                    if program.name == "triton" and program.pid and time.time() - program.since > GRACE_S:
                        LOG.warning("Triton (%d) has not answered %d times; it is started again", program.pid, silences)
                        with suppress(ProcessLookupError):
                            os.kill(program.pid, signal.SIGKILL)
                        silences = 0


if __name__ == "__main__":
    main()
