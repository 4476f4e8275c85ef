"""A small shop and a model trained on it, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.shops import visits, write_shop
from training.config import Config, FitConfig, ModelConfig
from training.evaluate import Protocol
from training.pipeline import train
from training.trained import TrainedModel

SMALL = Config(
    model=ModelConfig(dim=16, long_layers=1, short_layers=2, transitions=True),
    fit=FitConfig(epochs=2, learning_rate=1e-2),
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Offline files of the small shop."""
    return write_shop(tmp_path_factory.mktemp("offline"), visits())


@pytest.fixture(scope="session")
def trained(offline: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """A model of the small shop; not to be changed."""
    return train(offline, tmp_path_factory.mktemp("run"), SMALL, Protocol(), test_from_ms=None, resume=False)
