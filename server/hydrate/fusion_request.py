"""Step one: what is known of the shopper at this moment, as the tensors that say it to the model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from features.inputs.fusion_inputs import shopper_inputs
from features.inputs.shopper import Shopper
from features.inputs.transform import Array
from features.schema import OWN_ITEMS, PADDING, UNKNOWN
from server.catalogue.catalogue_index import CatalogueIndex, Rows
from server.releases.loaded_release import LoadedRelease


class FusionRequest:
    """One request to the fusion model.

    The shopper's tensors are made when it goes out, together with those of the requests that go with it: numpy costs by
    the call, hardly by the row.
    """

    __slots__ = ("_index", "_release", "_shopper", "_shopper_inputs", "allowed", "candidates")

    def __init__(
        self,
        shopper: Shopper,
        release: LoadedRelease,
        index: CatalogueIndex,
        *,
        allowed: bytes,
        candidates: npt.NDArray[np.int32],
    ) -> None:
        """Args:
        allowed: the packed bits of `LoadedRelease.allowed_bits`.
        candidates: int32 (C,), item indices, `PADDING` where there is none.
        """
        self.allowed = np.frombuffer(allowed, np.uint8)
        self.candidates = candidates
        self._shopper = shopper
        self._release = release
        self._index = index
        self._shopper_inputs: tuple[Array, ...] | None = None

    @property
    def release(self) -> int:
        """The number of the release that is to answer."""
        return self._release.number

    @property
    def shape_class(self) -> tuple[int, int, int]:
        """Only requests of one release and equal shapes go together."""
        return self.release, self.allowed.size, self.candidates.size

    @property
    def shopper_inputs(self) -> tuple[Array, ...]:
        """The arrays of `fusion_inputs.SHOPPER_INPUTS`, without batch dimension."""
        if self._shopper_inputs is None:
            _make_shopper_inputs([self])
        assert self._shopper_inputs is not None
        return self._shopper_inputs


def stacked_inputs(requests: Sequence[FusionRequest]) -> tuple[Array, ...]:
    """The inputs of `schema.FUSION_INPUTS`, in their order, of B requests of one shape class, batch dimension first."""
    new = [request for request in requests if request._shopper_inputs is None]
    stacked = _make_shopper_inputs(new) if new else ()
    if len(new) < len(requests):
        stacked = tuple(map(np.stack, zip(*(request.shopper_inputs for request in requests), strict=True)))
    allowed = np.stack([request.allowed for request in requests])
    return (*stacked, allowed, np.stack([request.candidates for request in requests]))


def _make_shopper_inputs(requests: Sequence[FusionRequest]) -> tuple[Array, ...]:
    """Makes the tensors of requests to one release, and returns them with their batch dimension."""
    release, index = requests[0]._release, requests[0]._index
    shoppers = [request._shopper for request in requests]
    rows = index.rows([*chain.from_iterable(shopper.events.item_ids for shopper in shoppers)])
    items = release.indices(rows)
    own = [*chain.from_iterable(shopper.purchases.first(OWN_ITEMS).item_ids for shopper in shoppers)]
    stacked = shopper_inputs(
        shoppers,
        recent_items=items,
        recent_content=release.content_of(np.where(items == UNKNOWN, rows, -1).astype(np.int32)),
        own_items=release.indices(index.rows(own)),
        codes=release.codes,
        interest_dim=release.interest_dim,
    )
    for request, inputs in zip(requests, zip(*stacked, strict=True), strict=True):
        request._shopper_inputs = inputs
    return stacked


CANDIDATES = (16, 128, 512, 1024)
"""Widths of the tensor `candidates`: only equal widths go together."""


def candidates_of(rows: Rows, release: LoadedRelease) -> npt.NDArray[np.int32]:
    """The tensor `candidates` that asks for the scores of at most 1,024 catalogue rows, in their order."""
    width = next(width for width in CANDIDATES if width >= rows.size)
    asked = np.full(width, PADDING, np.int32)
    indices = release.indices(rows)
    asked[: rows.size] = np.where(indices >= 0, indices, PADDING)
    return asked


NO_CANDIDATES: npt.NDArray[np.int32] = np.full(1, PADDING, np.int32)
"""The tensor `candidates` where nothing is to be scored."""
