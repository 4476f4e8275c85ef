"""The rows that one answer may show, in parts that have one sum of boosts each; asked for in one batch.

The model returns its best 256 of what it is allowed, by its own scores. Within a part all boosts are alike, so the best
of a part are among them; the best of all are then among the best of the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from features.inputs.shopper import Shopper
from server.catalogue.catalogue_index import CatalogueIndex, Mask, Rows
from server.hydrate.fusion_request import NO_CANDIDATES, FusionRequest
from server.infer.triton import FusionAnswer
from server.releases.loaded_release import LoadedRelease
from server.select.filter_masks import SharedMask
from server.select.filters import without
from server.select.selection import Floats, best_rows, in_one_order, more_is_known

NOTHING: Rows = np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True)
class AllowedRows:
    """What filter and rules allow, without the rows that this answer leaves out by name."""

    shared: SharedMask
    left_out: Rows

    @property
    def mask(self) -> Mask:
        """All of it."""
        return without(self.shared.mask, self.left_out)

    def bits(self, release: LoadedRelease) -> list[bytes]:
        """The tensor `allowed` of each part."""
        return [
            release.bits_without(release.allowed_bits(part.mask, part.stamp), self.left_out)
            for part in self.shared.parts
        ]

    def requests(self, shopper: Shopper, release: LoadedRelease, index: CatalogueIndex) -> list[FusionRequest]:
        """One for each part, all of one shape."""
        return [
            FusionRequest(shopper, release, index, allowed=bits, candidates=NO_CANDIDATES)
            for bits in self.bits(release)
        ]

    def best(self, answers: Sequence[FusionAnswer], release: LoadedRelease) -> tuple[Rows, Floats, Floats]:
        """Rows, scores and boosts, best sum of both first, from the answers to `requests`.

        They end where a part may have better rows than are known of it.
        """
        parts = list(zip(self.shared.parts, answers, strict=True))
        rows, scores, boosts = in_one_order(
            [(part.boost, *best_rows(answer, release, without(part.mask, self.left_out))) for part, answer in parts]
        )
        if len(parts) == 1:
            return rows, scores, boosts
        lowest = [a.top_scores[-1] + np.float32(part.boost) for part, a in parts if more_is_known(a)]
        count = int((scores + boosts >= max(lowest, default=-np.inf)).sum())
        return rows[:count], scores[:count], boosts[:count]

    def but(self, rows: Rows) -> AllowedRows:
        """The same without some rows."""
        return replace(self, left_out=np.concatenate([self.left_out, rows])) if rows.size else self

    def boosts(self, rows: Rows) -> Floats:
        """The sum of boosts that each of the rows has, float32 (n,)."""
        found = np.zeros(rows.size, np.float32)
        for part in self.shared.parts:
            found[part.mask[rows]] = part.boost
        return found

    def most_popular(self, best: Callable[[Mask], tuple[Rows, Floats, bool]]) -> tuple[Rows, Floats, Floats, bool]:
        """Rows, scores and boosts, best sum of both first, and whether `best` says yes of a part.

        Args:
            best: the most popular rows of a mask and their scores, whatever else is in the mask.
        """
        found = [(part.boost, *best(without(part.mask, self.left_out))) for part in self.shared.parts]
        in_order = in_one_order([(boost, rows, scores) for boost, rows, scores, _ in found])
        return (*in_order, any(chosen for *_, chosen in found))


def allowed_rows(shared: SharedMask, left_out: Sequence[tuple[str, Rows]]) -> AllowedRows:
    """Of a shared mask and what single fields leave out."""
    return AllowedRows(shared, np.concatenate([rows for _, rows in left_out]) if left_out else NOTHING)
