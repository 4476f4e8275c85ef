"""What the model saw of a shopper, as the bytes that the table `answers` keeps: written by the gateway, read by `skew`.

A header (`_HEADER`: the first bytes of `schema.schema_hash`, and D) before the arrays of `SHOPPER_INPUTS` one after
the other, little-endian, compressed by zlib. Most of them are padding: some 6 kB become a few hundred bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from functools import cache
from math import prod
from typing import Any

import numpy as np

from features.inputs.fusion_inputs import SHOPPER_INPUTS
from features.inputs.transform import Array
from features.schema import Tensor, schema_hash

_HEADER = struct.Struct("<8sI")
_DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4"), "UINT8": np.dtype("u1")}


class OtherSchema(ValueError):
    """The features were recorded under another tensor contract."""


def encode(inputs: Sequence[Array]) -> bytes:
    """The bytes of the arrays of `SHOPPER_INPUTS`, in their order."""
    assert len(inputs) == len(SHOPPER_INPUTS)
    interest_dim = next(array.size for tensor, array in zip(SHOPPER_INPUTS, inputs, strict=True) if -1 in tensor.dims)
    arrays = (
        array.astype(_DTYPES[tensor.dtype], copy=False) for tensor, array in zip(SHOPPER_INPUTS, inputs, strict=True)
    )
    content = b"".join(array.tobytes() for array in arrays)
    return _HEADER.pack(_schema(), interest_dim) + zlib.compress(content, level=1)


def decode(content: bytes) -> dict[str, Array]:
    """The arrays by the names of `SHOPPER_INPUTS`.

    Raises:
        OtherSchema: they were recorded under another `schema.schema_hash`.
    """
    schema, interest_dim = _HEADER.unpack_from(content)
    if schema != _schema():
        raise OtherSchema(f"recorded under schema {schema.hex()}, this version has {_schema().hex()}")
    arrays = zlib.decompress(content[_HEADER.size :])
    found: dict[str, Array] = {}
    start = 0
    for tensor in SHOPPER_INPUTS:
        shape = _shape(tensor, interest_dim)
        found[tensor.name] = np.frombuffer(arrays, _DTYPES[tensor.dtype], prod(shape), start).reshape(shape)
        start += found[tensor.name].nbytes
    return found


def _shape(tensor: Tensor, interest_dim: int) -> tuple[int, ...]:
    return tuple(interest_dim if size == -1 else size for size in tensor.dims)


@cache
def _schema() -> bytes:
    return bytes.fromhex(schema_hash())[:8]
