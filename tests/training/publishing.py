"""A trained model published in the small shop, and what may be wrong with one."""

from __future__ import annotations

import copy

import torch

from features.settings import Settings
from training.fusion import FusionModel
from training.publish import publish
from training.trained import TrainedModel

LOGGED = 5
"""Shoppers of the small shop whose events its log holds, `u:0` and up."""


def published(settings: Settings, trained: TrainedModel) -> int:
    return publish(settings, trained, why="test", note=lambda _: None)


def with_model(trained: TrainedModel, model: FusionModel) -> TrainedModel:
    """The same run with another model."""
    return TrainedModel(**{name: getattr(trained, name) for name in trained.__slots__} | {"model": model})


def forgetful(trained: TrainedModel) -> TrainedModel:
    """The model with the item table in disorder: whole and finite, and good for nothing."""
    model = copy.deepcopy(trained.model)
    with torch.no_grad():
        model.tower.ids.weight.normal_(generator=torch.Generator().manual_seed(0))
        for weight in model.repeat.parameters():
            weight.zero_()
    return with_model(trained, model)
