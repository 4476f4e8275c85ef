"""Masks that requests share: what a filter keeps by attributes is worked out once, until catalogue or rules change."""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import dataclass
from itertools import count

from server.catalogue.catalogue_index import CatalogueIndex, Mask
from server.queries import ItemFilter
from server.select.filters import Sellable, attribute_mask
from server.select.placement_rules import RulesInForce

MOST_BYTES = 64 << 20
"""Masks kept, with the filters by which they are found; the least recently used leave first."""
_PART_BYTES = 1 << 10
"""What a part takes beside its mask: so many small objects that they count where the catalogue is small."""

_Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class MaskPart:
    """Rows that may be shown and whose boosts have one sum. The mask is read-only; `stamp` names it for ever."""

    boost: float
    mask: Mask
    stamp: int


@dataclass(frozen=True, slots=True)
class SharedMask:
    """Rows that may be shown, and the same in parts by boost, none of them empty but where all is."""

    mask: Mask
    parts: tuple[MaskPart, ...]

    @property
    def size_bytes(self) -> int:
        """Of all its masks and what is around them."""
        masks = self.mask.nbytes + sum(part.mask.nbytes for part in self.parts if part.mask is not self.mask)
        return masks + _PART_BYTES * len(self.parts)


class FilterMasks:
    """One object a process; used in one thread."""

    def __init__(self, index: CatalogueIndex, sellable: Sellable) -> None:
        self._index = index
        self._sellable = sellable
        self._stamps = count(1)
        self._known: OrderedDict[_Key, SharedMask] = OrderedDict()
        self._bytes = 0
        self._version = index.version

    def of(self, now_ms: int, item_filter: ItemFilter, rules: RulesInForce) -> SharedMask:
        """What filter and rules allow but for what the filter leaves out by name."""
        sellable, stamp = self._sellable.mask(now_ms, allow_age_restricted=item_filter.allow_age_restricted)
        key = (
            stamp,
            rules.stamp,
            item_filter.keep_categories,
            item_filter.drop_categories,
            item_filter.keep_brands,
            item_filter.drop_brands,
            item_filter.min_price,
            item_filter.max_price,
            item_filter.in_stock_only,
        )
        if self._version != self._index.version:  # nothing of an older catalogue is ever found again
            self._known.clear()
            self._bytes, self._version = 0, self._index.version
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._make(sellable, item_filter, rules)
            self._bytes += found.size_bytes + _key_bytes(key)
            while self._bytes > MOST_BYTES and len(self._known) > 1:
                oldest, left = self._known.popitem(last=False)
                self._bytes -= left.size_bytes + _key_bytes(oldest)
        else:
            self._known.move_to_end(key)
        return found

    def _make(self, sellable: Mask, item_filter: ItemFilter, rules: RulesInForce) -> SharedMask:
        mask = sellable
        for _, blocked in rules.blocks:
            mask = mask & ~blocked
        mask = attribute_mask(self._index, mask, item_filter)
        if rules.place is None:
            return SharedMask(mask, (MaskPart(rules.sums[0], mask, next(self._stamps)),))
        masks = [mask & (rules.place == place) for place in range(len(rules.sums))]
        parts = [
            MaskPart(boost, part, next(self._stamps))
            for boost, part in zip(rules.sums, masks, strict=True)
            if part.any()
        ]
        return SharedMask(mask, tuple(parts) or (MaskPart(0.0, mask, next(self._stamps)),))


def _key_bytes(key: _Key) -> int:
    """Of the texts in a key: categories and brands may be long and many."""
    return sum(sys.getsizeof(text) for texts in key if isinstance(texts, tuple) for text in texts)
