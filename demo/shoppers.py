"""The simulated shop's shoppers: who they are, what they lastingly like, when they come."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from demo.assortment import COUNTRIES, GENDERS
from demo.catalogue import INTEREST_DIM, PRICE_PULL, STYLE_DIM, Floats, Ints, Occasions

AGE_BANDS = 5
TASTE_SCALE = 2.2
"""Standard deviation of one component of taste; times the unit style vectors it is the pull of style, in utility."""
INTEREST_SCALE = 2.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Shoppers:
    """S shoppers as columns.

    taste: (S, STYLE_DIM + 1), the price column included; `Catalogue.style @ taste` is utility.
    interest: (S, INTEREST_DIM); with the occasions' vectors it is the lasting interest in occasions.
    joined, left: (S,) days of the simulation, half-open.
    visits_per_day: (S,); hour: (S,) the favourite one; weekend: (S,) whether they come on weekends.
    """

    first: int
    age: Ints
    gender: Ints
    country: Ints
    taste: Floats
    interest: Floats
    joined: Ints
    left: Ints
    visits_per_day: Floats
    hour: Floats
    weekend: Ints

    @property
    def size(self) -> int:
        """S."""
        return self.age.size

    def ids(self) -> pl.Series:
        """`shopper-000001` and so on."""
        numbers = pl.int_range(self.first + 1, self.first + self.size + 1).cast(pl.String).str.zfill(6)
        return pl.select(pl.format("shopper-{}", numbers)).to_series()

    def occasion_logits(self, occasions: Occasions) -> Floats:
        """(S, K) lasting interest in each occasion, without season and popularity."""
        return np.asarray(INTEREST_SCALE * self.interest @ occasions.vectors.T)

    def frame(self) -> pl.DataFrame:
        """`users.parquet`; one attribute in ten is not known."""
        genders, countries = list(GENDERS), list(COUNTRIES) + ["SE"]
        hidden = np.random.default_rng([self.first, 7]).random((self.size, 3)) < 0.1
        return pl.DataFrame(
            {
                "user_id": self.ids(),
                "age": pl.Series(self.age),
                "gender": [genders[g] for g in self.gender],
                "country": [countries[c] for c in self.country],
            }
        ).with_columns(
            pl.when(pl.Series(~hidden[:, column])).then(pl.col(name)).alias(name)
            for column, name in enumerate(("age", "gender", "country"))
        )


def make_shoppers(seed: int, first: int, count: int, days: int) -> Shoppers:
    """Shoppers number `first` to `first + count`; taste follows gender, age and country in part."""
    latent_dim = STYLE_DIM + INTEREST_DIM
    groups = len(GENDERS) + AGE_BANDS + len(COUNTRIES) + 1
    centres = np.random.default_rng([seed, 2]).normal(size=(groups, latent_dim))
    rng = np.random.default_rng([seed, 3, first])
    gender = rng.choice(len(GENDERS), count, p=list(GENDERS.values()))
    shares = np.array([*COUNTRIES.values(), 0.0])
    shares[-1] = 1 - shares.sum()
    country = rng.choice(shares.size, count, p=shares)
    age = np.clip(rng.gamma(7.0, 5.8, count), 16, 88).astype(np.int64)
    band = np.clip((age - 15) // 12, 0, AGE_BANDS - 1)
    group = centres[gender] + centres[len(GENDERS) + band] + centres[len(GENDERS) + AGE_BANDS + country]
    latent = 0.45 * group + 0.7 * rng.normal(size=(count, latent_dim))
    price_level = 0.5 * latent[:, 0] + 0.8 * rng.normal(size=count)
    newcomer = rng.random(count) < 0.35
    joined = np.where(newcomer, rng.integers(0, days, count), 0)
    lifetime = np.where(rng.random(count) < 0.25, rng.exponential(days / 2, count).astype(np.int64) + 1, days)
    part_of_day = rng.choice(3, count, p=[0.2, 0.25, 0.55])
    return Shoppers(
        first=first,
        age=age,
        gender=gender,
        country=country,
        taste=np.column_stack([TASTE_SCALE * latent[:, :STYLE_DIM], 2 * PRICE_PULL * price_level]),
        interest=latent[:, STYLE_DIM:],
        joined=joined,
        left=np.minimum(days, joined + lifetime),
        visits_per_day=np.clip(rng.lognormal(np.log(0.11), 0.65, count), 0.01, 1.5),
        hour=np.array([8.5, 13.0, 20.5])[part_of_day] + rng.normal(size=count),
        weekend=(rng.random(count) < 0.4).astype(np.int64),
    )
