"""What the model saw of a shopper, as the bytes that the table `answers` keeps: written by the gateway, read by `skew`.

A header (`_HEADER`: `_contract`, D, and how many events and own items there are) before the arrays of `SHOPPER_INPUTS`
one after the other, little-endian, without their padding: some 6 kB become less than one. Zlib would save a third of
that.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from features.inputs.fusion_inputs import SHOPPER_INPUTS
from features.inputs.transform import Array
from features.schema import PADDING, RECENT_EVENTS, UNKNOWN, schema_hash

_HEADER = struct.Struct("<8sHHH")
_FORMAT = 2
_DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4"), "UINT8": np.dtype("u1")}
_PLACES = {tensor.name: place for place, tensor in enumerate(SHOPPER_INPUTS)}


class OtherSchema(ValueError):
    """The features were recorded under another tensor contract."""


def encode(inputs: Sequence[Array]) -> bytes:
    """The bytes of the arrays of `SHOPPER_INPUTS`, in their order."""
    assert len(inputs) == len(SHOPPER_INPUTS)
    recent, own = inputs[_PLACES["recent_items"]], inputs[_PLACES["own_items"]]
    there, bought = ((items != PADDING).nonzero()[0] for items in (recent, own))
    events = RECENT_EVENTS - int(there[0]) if there.size else 0
    own_items = int(bought[-1]) + 1 if bought.size else 0
    arrays = [
        array[_kept(tensor.name, recent, events, own_items)].astype(_DTYPES[tensor.dtype], copy=False).tobytes()
        for tensor, array in zip(SHOPPER_INPUTS, inputs, strict=True)
    ]
    header = _HEADER.pack(_contract(), inputs[_PLACES["long_interest"]].size, events, own_items)
    return b"".join([header, *arrays])


def decode(content: bytes) -> dict[str, Array]:
    """The arrays by the names of `SHOPPER_INPUTS`.

    Raises:
        OtherSchema: they were recorded under another `schema.schema_hash`, or in another form.
    """
    contract, interest_dim, events, own_items = _HEADER.unpack_from(content)
    if contract != _contract():
        raise OtherSchema(f"recorded under schema {contract.hex()}, this version has {_contract().hex()}")
    found: dict[str, Array] = {}
    start = _HEADER.size
    for tensor in SHOPPER_INPUTS:
        shape = tuple(interest_dim if size == -1 else size for size in tensor.dims)
        fill = PADDING if tensor.name in ("recent_items", "own_items") else 0
        array = found[tensor.name] = np.full(shape, fill, _DTYPES[tensor.dtype])
        where = _kept(tensor.name, found.get("recent_items"), events, own_items)
        part = array[where]
        array[where] = np.frombuffer(content, array.dtype, part.size, start).reshape(part.shape)
        start += part.nbytes
    return found


def _kept(name: str, recent_items: Array | None, events: int, own_items: int) -> Any:
    """Where an array is no padding: events stand at its end, own items at its start, content with unknown items."""
    if name == "recent_content":
        return recent_items == UNKNOWN
    if name.startswith("recent_"):
        return slice(RECENT_EVENTS - events, None)
    return slice(own_items) if name.startswith("own_") else slice(None)


@cache
def _contract() -> bytes:
    """Names the tensors and the form in which they are kept."""
    return bytes.fromhex(schema_hash())[:7] + bytes([_FORMAT])
