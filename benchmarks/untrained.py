"""A model with the weights it starts from, for measurements that ask how long a thing takes and not how good it is."""

from __future__ import annotations

import numpy as np

from features.settings import Settings
from training.config import Config
from training.dataset import read_log
from training.evaluate import Protocol, split_times
from training.fit import POPULARITY_DAYS, build_model
from training.moments import popularity_scores
from training.pipeline import Split, real_samples, stages
from training.trained import TrainedModel, release_items


def untrained(settings: Settings) -> TrainedModel:
    """The default model over a shop's built features, ready to be published."""
    log, moments = read_log(settings.offline)
    tuning, _ = stages(log, moments, Split(*split_times(moments, None)), Protocol())
    model, vocabulary = build_model(tuning, Config())
    popularity = popularity_scores(moments, log.item_count, POPULARITY_DAYS)
    return TrainedModel(
        model=model.eval(),
        config=Config(),
        items=release_items(log.catalogue, vocabulary, popularity.astype(np.float64)),
        content=vocabulary,
        codes=log.vocabularies,
        samples=real_samples(model.eval(), log, moments),
        report={},
    )
