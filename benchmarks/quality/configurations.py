"""The configuration of our model and of the peer on each set of data; one that is not named here is a shop, and has
the defaults.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.quality.peer.run import PeerSettings
from training.config import Config, FitConfig, ModelConfig

NO_FADING_DAYS = 1e6
"""A half-life for sets whose times are made up, or whose test is not later than what is learned."""

LONG_RUN = FitConfig(epochs=40, patience=4, max_minutes=240.0, learning_rate=1e-3, half_life_days=NO_FADING_DAYS)
MANY_SESSIONS = FitConfig(epochs=12, patience=2, max_minutes=240.0, learning_rate=2e-3, half_life_days=180.0)

CONFIGURATIONS: dict[str, Config] = {
    "ml-1m": Config(
        model=ModelConfig(long_layers=2, short_layers=2, dropout=0.2), fit=replace(LONG_RUN, batch_examples=128)
    ),
    "amazon-beauty": Config(model=ModelConfig(long_layers=2, dropout=0.5), fit=LONG_RUN),
    "amazon-beauty-time": Config(
        model=ModelConfig(long_layers=2, dropout=0.5), fit=replace(LONG_RUN, half_life_days=365.0)
    ),
    "diginetica": Config(model=ModelConfig(dim=96), fit=replace(MANY_SESSIONS, batch_examples=256)),
    "retailrocket": Config(model=ModelConfig(dim=96), fit=replace(MANY_SESSIONS, batch_examples=256)),
    "online-retail": Config(fit=FitConfig(epochs=15, patience=3, max_minutes=60.0)),
}


PEER_SETTINGS: dict[str, PeerSettings] = {
    "ml-1m": PeerSettings(max_length=200, epochs=100, patience=10),
    "amazon-beauty": PeerSettings(epochs=60, dropout=0.5),
    "amazon-beauty-time": PeerSettings(epochs=60, dropout=0.5),
    "diginetica": PeerSettings(max_length=20, epochs=20, patience=2, loss="sampled_softmax"),
    "retailrocket": PeerSettings(max_length=20, epochs=20, patience=2, loss="sampled_softmax"),
}


def configuration(task: str) -> Config:
    """The default configuration of a task, before any variant changes it."""
    return CONFIGURATIONS.get(task, Config())


def peer_settings(task: str) -> PeerSettings:
    """The settings of the peer; `epochs` is the most, validation chooses."""
    return PEER_SETTINGS.get(task, PeerSettings())
