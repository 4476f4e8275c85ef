"""From a list, best first, to a page: spread out by maximal marginal relevance, within caps by category and brand.

The page is built greedily: the best item comes first, and one whose category or brand has as many items on the page as
its cap allows is passed over. A page ends short only where every allowed item that is left is passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.schema import MAX_CATEGORY_LEVELS
from server.catalogue.catalogue_index import CatalogueIndex, Mask, Rows
from server.queries import Caps

Floats = npt.NDArray[np.float32]

POOL = 200
"""Best items among which diversity chooses."""


_NOTHING: Rows = np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True)
class _Cap:
    """codes: of each row there was when the page began. group_of: each code's group; 0 is none. most: of one group."""

    name: str
    codes: Rows
    group_of: Rows
    most: int

    def groups(self, rows: Rows) -> Rows:
        """The group of each of the rows."""
        return self.group_of[self.codes[rows]]

    def room(self, rows: Rows) -> npt.NDArray[np.int64]:
        """For each group, how many more may come beside these rows."""
        room = self.most - np.bincount(self.groups(rows), minlength=self.group_of.size)
        room[0] = np.iinfo(np.int64).max
        return room


class Page:
    """Rows taken so far, at most `size`; `take` is called with one list after the other until `done`."""

    def __init__(
        self,
        index: CatalogueIndex,
        size: int,
        diversity: float,
        caps: Caps,
        similarities: Callable[[Rows], Floats],
        beside: Rows = _NOTHING,
    ) -> None:
        """Caps go by the catalogue as it is now, whatever it becomes while the page waits for the model.

        Args:
            similarities: of every two of the rows, float32 (n, n).
            beside: rows shown besides; caps count them.
        """
        self.rows: Rows = np.zeros(0, np.int32)
        self.scores: Floats = np.zeros(0, np.float32)
        self.explored: int | None = None
        """Place that was given away, by `give_last`."""
        self._size = size
        self._diversity = diversity
        self._similarities = similarities
        self._beside = beside
        columns = index.columns
        self._caps: list[_Cap] = []
        if caps.max_per_category:
            upper = index.upper_nodes(caps.category_level or MAX_CATEGORY_LEVELS)
            self._caps.append(_Cap("max_per_category", columns.node.copy(), upper, caps.max_per_category))
        if caps.max_per_brand:
            brands = np.arange(int(columns.brand.max(initial=0)) + 1, dtype=np.int32)
            self._caps.append(_Cap("max_per_brand", columns.brand.copy(), brands, caps.max_per_brand))

    @property
    def done(self) -> bool:
        """Whether the page is full."""
        return self.rows.size >= self._size

    @property
    def shown(self) -> Rows:
        """All rows that caps count."""
        return np.concatenate([self._beside, self.rows])

    def take(self, rows: Rows, scores: Floats) -> None:
        """Fills the page from rows that are not on it, best first; in parts of `POOL` where diversity chooses."""
        if not self._diversity and not self._caps:
            count = self._size - self.rows.size
            self._add(rows[:count], scores[:count])
            return
        width = POOL if self._diversity else max(rows.size, 1)
        for start in range(0, rows.size, width):
            if self.done:
                return
            part, values = rows[start : start + width], scores[start : start + width]
            similarity = self._similarities(part) if self._diversity else None
            groups = [(cap.groups(part), cap.room(self.shown)) for cap in self._caps]
            places = spread_out(values, self._size - self.rows.size, self._diversity, similarity, groups)
            self._add(part[places], values[places])

    def _add(self, rows: Rows, scores: Floats) -> None:
        self.rows = np.concatenate([self.rows, rows]) if self.rows.size else rows
        self.scores = np.concatenate([self.scores, scores]) if self.scores.size else scores

    def open(self, mask: Mask) -> Mask:
        """Rows of the mask that may still be taken: not on the page, and no group of theirs is full."""
        left = mask.copy()
        left[self.shown] = False
        for _, full in self._full():
            left &= ~full[: mask.size]
        return left

    def closed(self, mask: Mask) -> Rows:
        """Rows of the mask that are not open."""
        closed: Rows = np.flatnonzero(mask & ~self.open(mask)).astype(np.int32)
        return closed

    def open_for_last(self, mask: Mask) -> Mask:
        """Rows of the mask that may take the place of the last one."""
        rows, self.rows = self.rows, self.rows[:-1]
        left = self.open(mask)
        self.rows = rows
        left[rows[-1]] = False
        return left

    def give_last(self, place: int, row: int, score: float) -> None:
        """The last row leaves, and `row` comes in at `place`."""
        self.rows = np.insert(self.rows[:-1], place, row)
        self.scores = np.insert(self.scores[:-1], place, score)
        self.explored = place

    def passed_over(self, mask: Mask) -> list[tuple[str, int]]:
        """(field, rows of the mask that its cap kept off the page); a row is counted at the first cap."""
        left = mask.copy()
        left[self.shown] = False
        counts = []
        for name, full in self._full():
            counts.append((name, int((left & full[: mask.size]).sum())))
            left &= ~full[: mask.size]
        return [(name, count) for name, count in counts if count]

    def _full(self) -> list[tuple[str, Mask]]:
        return [(cap.name, (cap.room(self.shown) <= 0)[cap.group_of[cap.codes]]) for cap in self._caps]


def spread_out(
    scores: Floats,
    count: int,
    diversity: float,
    similarity: Floats | None = None,
    groups: list[tuple[Rows, npt.NDArray[np.int64]]] | None = None,
) -> npt.NDArray[np.int64]:
    """Places of at most `count` items by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).

    The worth of an item is (1 - diversity) * score, scaled to 0 to 1, less diversity * its greatest similarity to what
    is chosen; of equals the first is taken. At 0 the places are in the order given.

    Args:
        scores: float32 (n,), best first.
        similarity: of every two items, float32 (n, n); not needed at 0.
        groups: for each cap the code of each item, (n,), and for each code how many more may be chosen.
    """
    groups = [(codes, room.copy()) for codes, room in groups or ()]
    count = min(count, scores.size)
    if diversity <= 0 or similarity is None:
        return _in_order(scores.size, count, groups)
    span = float(scores[0] - scores[-1]) if scores.size else 0.0
    worth = (1 - diversity) * (scores - scores[-1]) / span if span > 0 else np.zeros_like(scores)
    costs = similarity * np.float32(diversity)
    highest = np.full(scores.size, -np.inf, np.float32)  # cost of each item, by the nearest of the chosen
    chosen: list[int] = []
    for codes, room in groups:
        worth[room[codes] <= 0] = -np.inf
    now = worth.copy()
    while len(chosen) < count:
        best = int(now.argmax())
        if now[best] == -np.inf:
            break
        chosen.append(best)
        worth[best] = -np.inf
        for codes, room in groups:
            code = codes[best]
            room[code] -= 1
            if room[code] <= 0:
                worth[codes == code] = -np.inf
        np.maximum(highest, costs[best], out=highest)
        np.subtract(worth, highest, out=now)
    return np.array(chosen, np.int64)


def _in_order(size: int, count: int, groups: list[tuple[Rows, npt.NDArray[np.int64]]]) -> npt.NDArray[np.int64]:
    if not groups:
        return np.arange(count)
    chosen: list[int] = []
    codes = np.stack([codes for codes, _ in groups], axis=1).tolist()
    rooms = [room for _, room in groups]
    for place in range(size):
        if len(chosen) == count:
            break
        mine = codes[place]
        if all(room[code] > 0 for room, code in zip(rooms, mine, strict=True)):
            chosen.append(place)
            for room, code in zip(rooms, mine, strict=True):
                room[code] -= 1
    return np.array(chosen, np.int64)
