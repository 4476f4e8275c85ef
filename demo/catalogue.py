"""The simulated shop's catalogue and the hidden vectors that decide what sells to whom."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from demo.assortment import BRANDS, LOOKS, OCCASIONS, SERIES, SHELVES

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STYLE_DIM = 5
"""Dimensions of style; one more column holds the price level."""
INTEREST_DIM = 6
PRICE_PULL = 0.35
"""How much a step away from the shopper's price level costs, in utility."""
MEMBERS = 40
"""Items of an occasion, about."""
WEEK_DAYS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasions:
    """What people shop for. `vectors` (K, INTEREST_DIM), `log_popularity` (K,), `season_phase` (K,) in years."""

    names: list[str]
    shelves: list[list[str]]
    vectors: Floats
    log_popularity: Floats
    season_phase: Floats

    def seasonal(self, day_of_year: Floats) -> Floats:
        """Log weight of each occasion on each day, (n, K)."""
        wave = np.cos(2 * np.pi * (day_of_year[:, None] / 365.0 - self.season_phase[None, :]))
        return self.log_popularity[None, :] + 0.4 * wave


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """N items as columns; item index i is row i everywhere in the truth files.

    occasion: (N,) index of the one occasion that an item serves.
    style: (N, STYLE_DIM + 1); utility for a shopper is `static + style @ taste`.
    launch_day: (N,) day of the simulation, negative for what was there before.
    interval_days: (N,) replenishment, 0 for what lasts.
    """

    occasions: Occasions
    occasion: Ints
    style: Floats
    static: Floats
    quality: Floats
    drift_phase: Floats
    launch_day: Ints
    interval_days: Floats
    texts: pl.DataFrame

    @property
    def size(self) -> int:
        """N."""
        return self.occasion.size

    @cached_property
    def members(self) -> list[Ints]:
        """Items of each occasion."""
        order = np.argsort(self.occasion, kind="stable")
        bounds = np.searchsorted(self.occasion[order], np.arange(len(self.occasions.names) + 1))
        return [order[low:high] for low, high in zip(bounds[:-1], bounds[1:], strict=True)]

    @cached_property
    def slot(self) -> Ints:
        """(N,) position of each item among its occasion's members."""
        slots = np.zeros(self.size, np.int64)
        for items in self.members:
            slots[items] = np.arange(items.size)
        return slots

    def log_popularity(self, weeks: int) -> Floats:
        """(weeks, N): quality, slow drift, the novelty of a launch; minus infinity before it."""
        day = (np.arange(weeks) * WEEK_DAYS)[:, None].astype(float)
        age = day - self.launch_day[None, :]
        drift = 0.5 * np.sin(2 * np.pi * (day / 150.0 + self.drift_phase[None, :]))
        novelty = np.where(self.launch_day > 0, 0.9 * np.exp(-np.maximum(age, 0) / 21.0), 0.0)
        return np.where(age >= 0, self.quality[None, :] + drift + novelty, -np.inf)

    def frame(self, start_ms: int) -> pl.DataFrame:
        """`items.parquet` as the storefront would export it."""
        launch = pl.Series(start_ms + self.launch_day * 86_400_000).cast(pl.Datetime("ms")).cast(pl.Datetime("us"))
        return self.texts.with_columns(launch_time=launch.dt.replace_time_zone("UTC"))


def item_ids(count: int) -> pl.Series:
    """`item-00001` and so on, in index order."""
    return pl.select(pl.format("item-{}", pl.int_range(1, count + 1).cast(pl.String).str.zfill(5))).to_series()


def make_catalogue(seed: int, items: int, days: int) -> Catalogue:
    """A catalogue of `items` items, a fifth of them launched during the `days` of the simulation."""
    rng = np.random.default_rng([seed, 1])
    occasions = _occasions(rng, max(1, min(items // MEMBERS, len(OCCASIONS) * len(SERIES))))
    count = len(occasions.names)
    shelf_names = list(SHELVES)
    occasion = rng.permutation(np.arange(items) % count)
    shelf = np.empty(items, np.int64)
    for index, names in enumerate(occasions.shelves):
        rows = np.flatnonzero(occasion == index)
        shelf[rows] = [shelf_names.index(name) for name in rng.choice(names, rows.size)]
    # A third of the items are variants: they take shelf, brand and look from the item `parent`.
    parent = _variants(rng, occasion, shelf)
    brand = _zipf(rng, len(BRANDS), items)[parent]
    look_centres = _unit(rng.normal(size=(len(LOOKS), STYLE_DIM)))
    brand_look = rng.integers(len(LOOKS), size=len(BRANDS))
    brand_centres = _unit(_unit(rng.normal(size=(len(BRANDS), STYLE_DIM))) + 0.8 * look_centres[brand_look])
    look = np.where(rng.random(items) < 0.6, brand_look[brand], rng.integers(len(LOOKS), size=items))[parent]
    vectors = _unit(look_centres[look] + 0.5 * brand_centres[brand] + 0.1 * rng.normal(size=(items, STYLE_DIM)))
    brand_level = rng.normal(size=len(BRANDS))
    level = np.clip(0.8 * brand_level[brand] + 0.6 * rng.normal(size=items)[parent], -2.2, 2.2)
    launch = np.where(rng.random(items) < 0.8, -rng.integers(1, 700, items), rng.integers(0, max(days, 1), items))
    shelves = list(SHELVES.values())
    interval = np.array([shelf_of.interval_days for shelf_of in shelves])[shelf]
    return Catalogue(
        occasions=occasions,
        occasion=occasion,
        style=np.column_stack([vectors, level]),
        static=-PRICE_PULL * level**2,
        quality=0.8 * rng.normal(size=items),
        drift_phase=rng.random(items),
        launch_day=launch,
        interval_days=interval,
        texts=_texts(rng, occasions, occasion, shelf, brand, look, level, parent),
    )


def _occasions(rng: np.random.Generator, count: int) -> Occasions:
    pairs = [(f"{series} {name}".strip(), shelves.split()) for series in SERIES for name, shelves in OCCASIONS][:count]
    return Occasions(
        names=[name for name, _ in pairs],
        shelves=[shelves for _, shelves in pairs],
        vectors=_unit(rng.normal(size=(count, INTEREST_DIM))),
        log_popularity=0.5 * rng.normal(size=count),
        season_phase=rng.random(count),
    )


def _variants(rng: np.random.Generator, occasion: Ints, shelf: Ints) -> Ints:
    """(N,) the item that each item is a variant of: itself, or the one before it on the same occasion and shelf."""
    order = np.lexsort((shelf, occasion))
    same = (np.diff(occasion[order], prepend=-1) == 0) & (np.diff(shelf[order], prepend=-1) == 0)
    begins = ~(same & (rng.random(order.size) < 0.35))
    parent = np.empty(order.size, np.int64)
    parent[order] = order[np.maximum.accumulate(np.where(begins, np.arange(order.size), 0))]
    return parent


def _texts(
    rng: np.random.Generator,
    occasions: Occasions,
    occasion: Ints,
    shelf: Ints,
    brand: Ints,
    look: Ints,
    level: Floats,
    parent: Ints,
) -> pl.DataFrame:
    shelves, looks = list(SHELVES.values()), list(LOOKS)
    pick = rng.random((occasion.size, 4))
    rows = []
    for i in range(occasion.size):
        place, (models, colours) = shelves[shelf[i]], LOOKS[looks[look[i]]]
        base = parent[i]
        colour = colours[int(pick[i, 2] * len(colours))]
        noun, model = place.nouns[int(pick[base, 0] * len(place.nouns))], models[int(pick[base, 1] * len(models))]
        name = BRANDS[brand[i]]
        price = round(place.price * float(np.exp(0.35 * level[i])), 0) - 0.05
        rows.append(
            {
                "title": f"{name} {model} {occasions.names[occasion[i]]} {noun}, {colour}",
                "category_path": " > ".join(place.path),
                "brand": name,
                "price": max(price, 0.95),
                "stock": 0 if pick[i, 3] < 0.03 else int(5 + 295 * pick[i, 3] ** 2),
                "variant_group": f"group-{base + 1:05d}",
                "age_restricted": place.age_restricted,
                "attr_colour": colour,
                "attr_material": place.materials[int(pick[base, 3] * len(place.materials))],
                "attr_look": looks[look[i]],
            }
        )
    frame = pl.DataFrame(rows).with_columns(item_ids(occasion.size).alias("item_id"))
    again = pl.int_range(1, pl.len() + 1).over("title")
    title = pl.when(again > 1).then(pl.format("{} (No. {})", "title", again)).otherwise("title")
    return frame.with_columns(title=title).select("item_id", pl.exclude("item_id"))


def _zipf(rng: np.random.Generator, values: int, size: int) -> Ints:
    weights = 1.0 / np.arange(3, values + 3) ** 0.7
    return rng.choice(values, size, p=weights / weights.sum())


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
