"""One release as the gateway holds it: its item vectors beside the catalogue's rows, and the items it never saw."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from features.inputs.content import CATALOGUE_COLUMNS, content_codes
from features.inputs.outcome_features import relative_popularity
from features.releases.release import ReleaseFiles
from features.schema import CONTENT_TOKENS, UNKNOWN
from features.shop.catalogue import CatalogueItem
from server.catalogue.catalogue_index import CatalogueIndex, Mask, Rows

MOST_BYTES = 8 << 20
"""Packed masks kept, the least recently used leave first."""
LEAST_KEPT = 8

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class NewItems:
    """Items younger than the release, with what its item tower makes of their content.

    rows: int32 (m,) catalogue rows. content: int32 (m, CONTENT_TOKENS). vectors: float32 (m, D). biases: float32 (m,).
    """

    rows: Rows
    content: Ints
    vectors: Floats
    biases: Floats

    @staticmethod
    def none(interest_dim: int) -> NewItems:
        """No items."""
        return NewItems(
            np.zeros(0, np.int32),
            np.zeros((0, CONTENT_TOKENS), np.int32),
            np.zeros((0, interest_dim), np.float32),
            np.zeros(0, np.float32),
        )

    def replaced(self, rows: Rows, content: Ints, vectors: Floats, biases: Floats) -> NewItems:
        """With other content for `rows`, old or new."""
        keep = ~np.isin(self.rows, rows)
        return NewItems(
            np.concatenate([self.rows[keep], rows]),
            np.concatenate([self.content[keep], content]),
            np.concatenate([self.vectors[keep], vectors]),
            np.concatenate([self.biases[keep], biases]),
        )


class LoadedRelease:
    """A release that is, or is about to be, in service. Item index i is catalogue row `rows[i]`."""

    def __init__(self, files: ReleaseFiles, rows: Rows) -> None:
        """From its files and `catalogue_rows` of its items; touches nothing else, any thread may do it."""
        self.number = files.manifest.release
        self.interest_dim = files.manifest.interest_dim
        self.folder = files.folder
        self.content = files.content
        self.codes = files.codes
        self.probabilities = files.probabilities
        self.popularity = relative_popularity(files.items["popularity"].to_numpy())
        """float32 (N,), as a multiple of the average item's."""
        self.vectors = np.ascontiguousarray(files.item_vectors, np.float32)  # (N, D)
        self.units = unit_length(self.vectors)
        self.mean_unit = self.units.mean(axis=0) if len(self.units) else np.zeros(self.interest_dim, np.float32)
        self.biases = files.items["bias"].to_numpy().astype(np.float32)
        self.mean_vector = self.vectors.mean(axis=0) if len(self.vectors) else np.zeros(self.interest_dim, np.float32)
        self.mean_bias = float(self.biases.mean()) if self.biases.size else 0.0
        self.rows = rows
        self.new = NewItems.none(self.interest_dim)
        self.awaiting_vectors: dict[str, CatalogueItem] = {}
        """New items whose content the item tower has not seen yet."""
        last = int(rows.max(initial=-1)) + 1  # for all rows that are not known
        self._index_of_row = np.full(last + 1, UNKNOWN, np.int32)
        self._index_of_row[self.rows] = np.arange(self.rows.size, dtype=np.int32)
        self._bits: OrderedDict[int, bytes] = OrderedDict()

    def indices(self, rows: Rows) -> Ints:
        """Item indices of catalogue rows, int32 (n,); `UNKNOWN` for rows that the release does not know, or -1."""
        last = self._index_of_row.size - 1
        indices: Ints = self._index_of_row[np.where((rows >= 0) & (rows < last), rows, last)]
        return indices

    def knows(self, item_id: str, index: CatalogueIndex) -> bool:
        """Whether the item was there when the release was trained."""
        return bool(self.indices(index.rows([item_id]))[0] >= 0)

    def slots(self, rows: Rows) -> Ints:
        """Places in `new` of catalogue rows, int32 (n,), -1 where there is none."""
        if not self.new.rows.size:
            return np.full(rows.size, -1, np.int32)
        order = np.argsort(self.new.rows)
        places = np.minimum(np.searchsorted(self.new.rows, rows, sorter=order), order.size - 1)
        found = order[places]
        return np.where(self.new.rows[found] == rows, found, -1).astype(np.int32)

    def unit_vectors(self, rows: Rows) -> Floats:
        """Vectors of length 1 of catalogue rows, float32 (n, D); zeros for items without one."""
        indices, slots = self.indices(rows), self.slots(rows)
        units = np.zeros((rows.size, self.interest_dim), np.float32)
        units[indices >= 0] = self.units[indices[indices >= 0]]
        units[slots >= 0] = unit_length(self.new.vectors[slots[slots >= 0]])
        return units

    def cosines(self, rows: Rows, unit: Floats) -> Floats:
        """Cosine of each catalogue row and a vector of length 1, float32 (n,); 0 for items without a vector."""
        if 4 * rows.size < self.rows.size:
            few: Floats = self.unit_vectors(rows) @ unit
            return few
        indices, slots = self.indices(rows), self.slots(rows)
        known, new = indices >= 0, slots >= 0
        cosines = np.zeros(rows.size, np.float32)
        cosines[known] = (self.units @ unit)[indices[known]]  # once over all is cheaper than a copy of most
        cosines[new] = unit_length(self.new.vectors[slots[new]]) @ unit
        return cosines

    def content_scores(self, rows: Rows, interest: Floats) -> Floats:
        """Interest on the vectors of catalogue rows, without repeat terms, float32 (n,); -inf without a vector."""
        indices, slots = self.indices(rows), self.slots(rows)
        scores = np.full(rows.size, -np.inf, np.float32)
        known, new = indices >= 0, slots >= 0
        scores[known] = self.vectors[indices[known]] @ interest + self.biases[indices[known]]
        scores[new] = self.new.vectors[slots[new]] @ interest + self.new.biases[slots[new]]
        return scores

    def content_of(self, rows: Rows) -> Ints:
        """Content codes of rows that the release does not know, int32 (n, CONTENT_TOKENS), else zeros."""
        slots = self.slots(rows)
        content = np.zeros((rows.size, CONTENT_TOKENS), np.int32)
        content[slots >= 0] = self.new.content[slots[slots >= 0]]
        return content

    def allowed_bits(self, mask: Mask, stamp: int | None) -> bytes:
        """The tensor `allowed` for a mask over catalogue rows; one zero byte where it allows every item.

        Args:
            stamp: names a mask that many requests share, so that it is packed once.
        """
        if stamp is not None and stamp in self._bits:
            self._bits.move_to_end(stamp)
            return self._bits[stamp]
        mine = mask[self.rows]
        bits = b"\0" if mine.all() else np.packbits(mine, bitorder="little").tobytes()
        if bits == b"\0" and not mine.any():
            bits = b"\0\0"  # none of at most eight items; one zero byte would mean all
        if stamp is not None:
            self._bits[stamp] = bits
            while len(self._bits) > max(LEAST_KEPT, MOST_BYTES // max(self.rows.size // 8, 1)):
                self._bits.popitem(last=False)
        return bits

    def bits_without(self, bits: bytes, rows: Rows) -> bytes:
        """The tensor `allowed` with some catalogue rows taken out."""
        if not rows.size:
            return bits
        indices = self.indices(rows)
        indices = indices[indices >= 0]
        if not indices.size:
            return bits
        if bits == b"\0":
            bits = np.packbits(np.ones(self.rows.size, np.bool_), bitorder="little").tobytes()
        packed = np.frombuffer(bits, np.uint8)
        left = np.zeros(max(packed.size, 2), np.uint8)  # one zero byte would mean all
        left[: packed.size] = packed
        np.bitwise_and.at(left, indices >> 3, ~(np.uint8(1) << (indices & 7).astype(np.uint8)))
        return left.tobytes()

    def content_codes(self, items: Sequence[CatalogueItem]) -> Ints:
        """Content of items in this release's vocabulary, int32 (n, CONTENT_TOKENS)."""
        columns: dict[str, list[object]] = {name: [] for name in CATALOGUE_COLUMNS}
        for item in items:
            values = {name: getattr(item, name) for name in CATALOGUE_COLUMNS}
            values["attributes"] = sorted(f"{name}={value}" for name, value in item.attributes.items())
            for name, value in values.items():
                columns[name].append(value)
        return content_codes(pl.DataFrame(columns, schema=CATALOGUE_COLUMNS), self.content)


def catalogue_rows(items: pl.DataFrame, index: CatalogueIndex) -> Rows:
    """Rows of a release's items, int32 (n,); one that the catalogue lacks is taken as the release knew it."""
    item_ids = items["item_id"].to_list()
    rows = index.rows(item_ids)
    missing = np.flatnonzero(rows < 0)
    if missing.size:
        known = items[missing].select("item_id", "title", "category_path", "brand", "price").to_dicts()
        index.apply(CatalogueItem(**row | {"category_path": row["category_path"] or []}) for row in known)
        rows = index.rows(item_ids)
    return rows


def unit_length(vectors: Floats) -> Floats:
    """Vectors of length 1, float32 (n, D); zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Floats = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return units
