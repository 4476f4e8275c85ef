"""Step one: what is known of the shopper at this moment, as the tensors that say it to the model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from features.fusion_inputs import shopper_inputs
from features.schema import OWN_ITEMS, PADDING, UNKNOWN
from features.shopper import Shopper
from server.catalogue.catalogue_index import CatalogueIndex, Rows
from server.infer.triton import FusionRequest
from server.releases.loaded_release import LoadedRelease


def fusion_request(
    shopper: Shopper,
    release: LoadedRelease,
    index: CatalogueIndex,
    *,
    allowed: bytes,
    candidates: npt.NDArray[np.int32],
) -> FusionRequest:
    """The model's inputs for one request.

    Args:
        allowed: the packed bits of `LoadedRelease.allowed_bits`.
        candidates: int32 (C,), item indices, `PADDING` where there is none.
    """
    rows = index.rows([event.item_id for event in shopper.events])
    items = release.indices(rows)
    inputs = shopper_inputs(
        shopper,
        recent_items=items,
        recent_content=release.content_of(np.where(items == UNKNOWN, rows, -1).astype(np.int32)),
        own_items=release.indices(index.rows([purchase.item_id for purchase in shopper.purchases[:OWN_ITEMS]])),
        codes=release.codes,
        interest_dim=release.interest_dim,
    )
    return FusionRequest(release.number, (*inputs, np.frombuffer(allowed, np.uint8), candidates))


CANDIDATES = (16, 128, 512, 1024)
"""Widths of the tensor `candidates`: only equal widths go together."""


def candidates_of(rows: Rows, release: LoadedRelease) -> npt.NDArray[np.int32]:
    """The tensor `candidates` that asks for the scores of at most 1,024 catalogue rows, in their order."""
    width = next(width for width in CANDIDATES if width >= rows.size)
    asked = np.full(width, PADDING, np.int32)
    indices = release.indices(rows)
    asked[: rows.size] = np.where(indices >= 0, indices, PADDING)
    return asked


def no_candidates() -> npt.NDArray[np.int32]:
    """The tensor `candidates` where nothing is to be scored."""
    return np.full(1, PADDING, np.int32)
