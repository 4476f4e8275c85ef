"""An item's content as a short list of codes: category path, brand, price bucket, attributes, words of the title.

Training learns the vocabulary and the gateway applies it to items that are younger than the release, so the code
stands once. Input is the catalogue's frame (`CATALOGUE_COLUMNS`); output is int32 (n, CONTENT_TOKENS), 0 at padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from features.inputs.codes import grown_codes
from features.schema import CONTENT_TOKENS

CATALOGUE_COLUMNS: Final[dict[str, pl.DataType]] = {
    "item_id": pl.String(),
    "title": pl.String(),
    "category_path": pl.List(pl.String()),
    "brand": pl.String(),
    "price": pl.Float64(),
    "attributes": pl.List(pl.String()),  # "name=value"
}
"""What content is made of; every column but the id may be null."""
PRICE_BUCKETS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentVocabulary:
    """Token to code (1 and up, most frequent first) and the prices at which the next bucket begins."""

    codes: Mapping[str, int]
    price_edges: Sequence[float]

    @property
    def size(self) -> int:
        """Rows that an embedding over the codes needs, padding included."""
        return len(self.codes) + 1


def fit_vocabulary(
    items: pl.DataFrame, known: ContentVocabulary | None = None, *, min_items: int = 3
) -> ContentVocabulary:
    """The tokens that at least `min_items` items carry; one that fewer carry says nothing about the next item.

    Args:
        known: a vocabulary that is to grow: its codes and price buckets stay, new tokens follow.
    """
    prices = items["price"].drop_nulls().to_numpy()
    edges: list[float] = list(known.price_edges) if known else []
    if prices.size and known is None:
        quantiles = np.quantile(prices, np.linspace(0, 1, PRICE_BUCKETS + 1)[1:-1])
        edges = sorted({float(value) for value in quantiles})
    tokens = _tokens(items, edges)
    counts = tokens.group_by("token").agg(pl.len().alias("items")).filter(pl.col("items") >= min_items)
    ordered = counts.sort(["items", "token"], descending=[True, False])["token"].to_list()
    return ContentVocabulary(codes=grown_codes(known.codes if known else {}, ordered), price_edges=edges)


def content_codes(items: pl.DataFrame, vocabulary: ContentVocabulary) -> npt.NDArray[np.int32]:
    """int32 (n, CONTENT_TOKENS) in the order of `items`: the structured tokens first, then the rarest words."""
    codes = np.zeros((items.height, CONTENT_TOKENS), np.int32)
    if not vocabulary.codes or not items.height:
        return codes
    known = pl.DataFrame(
        {"token": list(vocabulary.codes), "code": list(vocabulary.codes.values())},
        schema={"token": pl.String, "code": pl.Int32},
    )
    rows = (
        _tokens(items, list(vocabulary.price_edges))
        .join(known, on="token", how="inner")
        .sort(["row", "rank", "code"], descending=[False, False, True])
        .with_columns(slot=pl.int_range(pl.len()).over("row"))
        .filter(pl.col("slot") < CONTENT_TOKENS)
    )
    codes[rows["row"].to_numpy(), rows["slot"].to_numpy()] = rows["code"].to_numpy()
    return codes


def _tokens(items: pl.DataFrame, price_edges: list[float]) -> pl.DataFrame:
    """One row for each (item row, token), unique, with the rank in which tokens take the slots."""
    frame = items.select(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("row"),
        *[pl.col(name).cast(kind) for name, kind in CATALOGUE_COLUMNS.items() if name != "item_id"],
    )
    levels = (
        frame.select("row", "category_path")
        .explode("category_path")
        .drop_nulls()
        .with_columns(pl.col("category_path").cum_count().over("row").alias("level"))
        .with_columns(pl.format("category:{}:{}", "level", pl.col("category_path").str.to_lowercase()).alias("token"))
        .select("row", "token", pl.lit(0).alias("rank"))
    )
    brand = _single(frame, "brand", "brand:", rank=1)
    price = (
        frame.select("row", "price")
        .drop_nulls()
        .with_columns(
            pl.Series("bucket", np.searchsorted(price_edges, frame["price"].drop_nulls().to_numpy(), side="right"))
        )
        .select("row", pl.format("price:{}", "bucket").alias("token"), pl.lit(2).alias("rank"))
    )
    attributes = (
        frame.select("row", "attributes")
        .explode("attributes")
        .drop_nulls()
        .select("row", pl.format("attribute:{}", "attributes").alias("token"), pl.lit(3).alias("rank"))
    )
    words = (
        frame.select("row", pl.col("title").str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]{2,}").alias("word"))
        .explode("word")
        .drop_nulls()
        .select("row", pl.format("word:{}", "word").alias("token"), pl.lit(4).alias("rank"))
    )
    return pl.concat([levels, brand, price, attributes, words]).unique(["row", "token"], maintain_order=True)


def _single(frame: pl.DataFrame, column: str, prefix: str, *, rank: int) -> pl.DataFrame:
    return (
        frame.select("row", column)
        .drop_nulls()
        .select(
            "row",
            pl.format(prefix + "{}", pl.col(column).str.to_lowercase()).alias("token"),
            pl.lit(rank).alias("rank"),
        )
    )
