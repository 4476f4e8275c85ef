"""A small shop and a model trained on it, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from features.database.engine import open_database
from features.log.event_log import EventLog
from features.settings import Settings
from features.shop.catalogue import Catalogue, CatalogueItem
from tests.training.publishing import LOGGED
from tests.training.shops import as_written, visits, write_shop
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


@pytest.fixture
def shop(settings: Settings, offline: Path) -> Settings:
    """A shop whose log holds some of the events that the model was trained on, and whose offline files hold all."""
    shutil.copytree(offline, settings.offline)
    engine = open_database(settings.log_url)
    rows = [row for row in visits() if int(row[0][2:]) < LOGGED]
    events = as_written(rows)
    EventLog(engine).append(events, max(event.event_time_ms for event in events))
    Catalogue(engine).upsert([CatalogueItem(item_id="i001", category_path=["Home"])])
    engine.dispose()
    return settings
