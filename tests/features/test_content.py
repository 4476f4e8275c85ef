"""Content codes: the same tokens for training and gateway, whatever a catalogue lacks."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from features.inputs.content import (
    CATALOGUE_COLUMNS,
    PRICE_BUCKETS,
    ContentVocabulary,
    content_codes,
    fit_vocabulary,
)
from features.schema import CONTENT_TOKENS

names = st.sampled_from(["Red", "red", "Lamp", "Sofa", "Ω", "long oak table", "Stuhl & Co", ""])
items = st.fixed_dictionaries(
    {
        "title": st.none() | st.lists(names, max_size=4).map(" ".join),
        "category_path": st.none() | st.lists(names, max_size=3),
        "brand": st.none() | names,
        "price": st.none() | st.floats(0, 1000),
        "attributes": st.none() | st.lists(st.sampled_from(["size=L", "size=M", "led=true"]), max_size=3),
    }
)


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """A catalogue; ids are row numbers."""
    return pl.DataFrame([{"item_id": f"item-{n}"} | row for n, row in enumerate(rows)], schema=CATALOGUE_COLUMNS)


def tokens_of(row: dict[str, Any], edges: list[float]) -> list[tuple[int, str]]:
    """(rank, token) of one item, by a plain loop."""
    found: list[tuple[int, str]] = []
    for level, name in enumerate(row["category_path"] or [], 1):
        found.append((0, f"category:{level}:{name.lower()}"))
    if row["brand"] is not None:
        found.append((1, f"brand:{row['brand'].lower()}"))
    if row["price"] is not None:
        found.append((2, f"price:{sum(edge <= row['price'] for edge in edges)}"))
    found += [(3, f"attribute:{pair}") for pair in row["attributes"] or []]
    found += [(4, f"word:{word}") for word in re.findall(r"[^\W_]{2,}", (row["title"] or "").lower())]
    return list(dict.fromkeys(found))


@settings(max_examples=60, deadline=None)
@given(st.lists(items, min_size=1, max_size=8), st.integers(1, 3))
def test_vocabulary_and_codes_equal_a_plain_loop(rows: list[dict[str, Any]], min_items: int) -> None:
    catalogue = frame(rows)
    vocabulary = fit_vocabulary(catalogue, min_items=min_items)
    counts: dict[str, int] = {}
    edges = list(vocabulary.price_edges)
    for row in rows:
        for _, token in tokens_of(row, edges):
            counts[token] = counts.get(token, 0) + 1
    frequent = [token for token, n in counts.items() if n >= min_items]
    ordered = sorted(frequent, key=lambda token: (-counts[token], token))
    assert dict(vocabulary.codes) == {token: code for code, token in enumerate(ordered, 1)}
    codes = content_codes(catalogue, vocabulary)
    for row, got in zip(rows, codes, strict=True):
        known = [(rank, -vocabulary.codes[token]) for rank, token in tokens_of(row, edges) if token in vocabulary.codes]
        expected = [-code for _, code in sorted(known)][:CONTENT_TOKENS]
        assert got.tolist() == expected + [0] * (CONTENT_TOKENS - len(expected))


def test_an_item_has_the_same_codes_alone_as_among_others() -> None:
    rows = [
        {"title": f"oak table {n}", "category_path": ["Home", "Tables"], "brand": f"b{n % 2}", "price": float(n)}
        for n in range(20)
    ]
    catalogue = frame(rows)
    vocabulary = fit_vocabulary(catalogue)
    together = content_codes(catalogue, vocabulary)
    for number in range(catalogue.height):
        np.testing.assert_array_equal(content_codes(catalogue[number : number + 1], vocabulary)[0], together[number])


def test_a_vocabulary_that_grows_keeps_its_codes_and_price_buckets() -> None:
    old = fit_vocabulary(frame([{"brand": "old", "price": float(n)} for n in range(20)]), min_items=1)
    later = frame([{"brand": brand, "price": 1e6} for brand in ("new", "old", "newer", "new")])
    grown = fit_vocabulary(later, old, min_items=1)
    assert grown.price_edges == old.price_edges
    assert grown.codes == {**old.codes, "brand:new": len(old.codes) + 1, "brand:newer": len(old.codes) + 2}
    assert old.codes[f"price:{PRICE_BUCKETS - 1}"] in content_codes(later, grown)[0]


def test_an_empty_catalogue_and_an_empty_vocabulary_give_padding() -> None:
    known = ContentVocabulary(codes={"word:oak": 1}, price_edges=[])
    assert content_codes(frame([]), known).shape == (0, CONTENT_TOKENS)
    empty = fit_vocabulary(frame([]))
    assert empty.size == 1
    assert not content_codes(frame([{"title": "oak"}]), empty).any()


def test_more_tokens_than_slots_keep_the_structured_ones_first() -> None:
    row = {"title": " ".join(f"word{n}" for n in range(30)), "category_path": ["A", "B"], "brand": "c", "price": 1.0}
    catalogue = frame([row] * 3)
    vocabulary = fit_vocabulary(catalogue)
    kept = set(content_codes(catalogue, vocabulary)[0].tolist())
    assert len(kept) == CONTENT_TOKENS and 0 not in kept
    assert {vocabulary.codes[token] for token in ("category:1:a", "category:2:b", "brand:c")} <= kept
