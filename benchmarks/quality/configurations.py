"""The configuration of our model and of the peer on each set of data; one that is not named here is a shop, and has
the defaults, but for the time: a figure does not depend on how fast the machine is.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.quality.peer.run import PeerSettings
from training.config import Config, FitConfig, ModelConfig

NO_FADING_DAYS = 1e6
"""A half-life for sets whose times are made up, or whose test is not later than what is learned."""

DENSE = FitConfig(
    epochs=12,
    patience=3,
    max_minutes=240.0,
    batch_examples=1024,
    segment_examples=1 << 20,
    learning_rate=2e-3,
    half_life_days=NO_FADING_DAYS,
    drop_codes=0.0,
    drop_transitions=0.0,
    drop_gate=0.0,
    late_materialization=0.0,
)
"""Every event is a moment: all places of a stretch are learned from at once."""

SESSIONS = replace(
    DENSE, epochs=6, patience=2, weight_decay=0.3, drop_long=0.0, drop_recent=0.0, drop_ids=0.0, refit=True
)
"""Items come and go within weeks, so the half-lives, in made-up days, are a third of the sessions."""

SHOP = Config(fit=FitConfig(max_minutes=240.0))

CONFIGURATIONS: dict[str, Config] = {
    "ml-1m": Config(
        model=ModelConfig(
            long_layers=2,
            dropout=0.2,
            fusion="gate",
            overlap=True,
            content=False,
            time=False,
            repeat=False,
            transitions=True,
        ),
        fit=replace(DENSE, epochs=8, batch_examples=2048, drop_long=0.05, drop_recent=0.05, drop_ids=0.0),
    ),
    "amazon-beauty": Config(
        model=ModelConfig(
            heads=1, long_layers=2, dropout=0.5, fusion="gate", overlap=True, repeat=False, transitions=True
        ),
        fit=DENSE,
    ),
    "amazon-beauty-time": Config(
        model=ModelConfig(
            heads=1, long_layers=2, dropout=0.5, fusion="gate", overlap=True, repeat=False, transitions=True
        ),
        fit=replace(DENSE, half_life_days=365.0),
    ),
    "diginetica": Config(
        model=ModelConfig(
            dim=128, fusion="gate", long=False, dropout=0.3, content=False, time=False, covisitation=True
        ),
        fit=replace(SESSIONS, batch_examples=2048, half_life_days=150.0),
    ),
    "retailrocket": Config(
        model=ModelConfig(fusion="gate", long=False, dropout=0.3, content=False, time=False, covisitation=True),
        fit=replace(SESSIONS, half_life_days=100.0),
    ),
    "online-retail": Config(
        model=ModelConfig(fusion="gate", overlap=True),
        fit=replace(SHOP.fit, epochs=5, patience=2, drop_gate=0.0, own_items_loss=1.0),
    ),
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
    return CONFIGURATIONS.get(task, SHOP)


def peer_settings(task: str, *, as_ours: bool) -> PeerSettings:
    """The settings of the peer; `epochs` is the most, validation chooses. as_ours: as many as our model has."""
    ours, settings = configuration(task), PEER_SETTINGS.get(task, PeerSettings())
    return replace(settings, dim=ours.model.dim, epochs=ours.fit.epochs if as_ours else settings.epochs)
