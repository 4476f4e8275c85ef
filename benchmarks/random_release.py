"""A shop whose release has random weights: of any size, in seconds, published as a trained one is.

Model, export, gate and publishing are the training package's own, so latency and memory are a real release's; what it
recommends means nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import torch

from features.database.engine import open_database
from features.inputs.codes import CodeVocabularies
from features.inputs.content import CATALOGUE_COLUMNS, content_codes, fit_vocabulary
from features.inputs.probabilities import Probabilities
from features.settings import Settings
from features.shop.catalogue import Catalogue, CatalogueItem
from training.config import Config
from training.fusion import FusionModel
from training.item_tower import ItemTower
from training.publish import publish
from training.trained import TrainedModel, release_items

TOP_CATEGORIES = 10
SUBCATEGORIES = 10
"""Of each top category."""
BRANDS = 50
HIGHEST_PRICE = 1000.0
FILLED_AT_ONCE = 10_000


def made_up_items(count: int, seed: int = 0) -> Iterator[CatalogueItem]:
    """Items whose category, brand and price are drawn evenly and independently: a tenth in each top category, a
    hundredth in each category below, prices even from 0 to `HIGHEST_PRICE`."""
    rng = np.random.default_rng(seed)
    tops, subs = rng.integers(TOP_CATEGORIES, size=count), rng.integers(SUBCATEGORIES, size=count)
    brands, prices = rng.integers(BRANDS, size=count), rng.random(count) * HIGHEST_PRICE
    for number in range(count):
        yield CatalogueItem(
            item_id=f"item-{number}",
            category_path=[f"top {tops[number]}", f"sub {subs[number]}"],
            brand=f"brand {brands[number]}",
            price=float(prices[number]),
            stock=1,
        )


def random_model(items: list[CatalogueItem], seed: int = 0) -> TrainedModel:
    """A model of the default shape over the items, its weights drawn at random."""
    torch.manual_seed(seed)
    columns = {name: [getattr(item, name) for item in items] for name in CATALOGUE_COLUMNS if name != "attributes"}
    frame = pl.DataFrame(
        columns | {"attributes": [[]] * len(items)},
        schema={name: CATALOGUE_COLUMNS[name] for name in (*columns, "attributes")},
    )
    config, content = Config(), fit_vocabulary(frame)
    codes = CodeVocabularies(gender={}, country={}, device={})
    tower = ItemTower(
        torch.from_numpy(content_codes(frame, content)), torch.ones(len(items)), content.size, config.model.dim
    )
    model = FusionModel(config.model, tower, codes)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
        for weight in model.codes.parameters():
            weight.zero_()  # else scores change with the hour
    return TrainedModel(
        model=model.eval(),
        config=config,
        items=release_items(frame, content, np.ones(len(items))),
        content=content,
        codes=codes,
        samples={},
        probabilities=Probabilities(),
        report={},
    )


def fill_and_publish(settings: Settings, count: int, seed: int = 0) -> None:
    """Writes a catalogue and makes a random release of it live."""
    items = list(made_up_items(count, seed))
    engine = open_database(settings.log_url)
    catalogue = Catalogue(engine)
    for start in range(0, count, FILLED_AT_ONCE):
        catalogue.upsert(items[start : start + FILLED_AT_ONCE])
    engine.dispose()
    unlearned = random_model(items, seed)
    publish(settings, unlearned, why="a measurement", note=lambda _: None, although_worse="random weights")
