"""What a search may choose: the settings of `training.config` that it varies, between which values, drawn how."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from training.config import ENCODERS, FUSIONS, Config

if TYPE_CHECKING:  # the command line imports this module, and most commands have no use for Optuna
    from optuna.trial import BaseTrial

Value = int | float | str


class Sampler(str, Enum):
    """How the next configuration is drawn: blindly, or where the good ones lie (TPE, NeurIPS 2011)."""

    RANDOM = "random"
    TPE = "tpe"


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOf:
    """One of a few values without an order."""

    values: tuple[Value, ...]

    def suggest(self, trial: BaseTrial, name: str) -> Value:
        """The trial's choice."""
        return cast(Value, trial.suggest_categorical(name, self.values))


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeNumber:
    """A whole number, both ends included."""

    low: int
    high: int

    def suggest(self, trial: BaseTrial, name: str) -> Value:
        """The trial's choice."""
        return trial.suggest_int(name, self.low, self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """A number, drawn evenly or, where orders of magnitude matter, evenly by its logarithm."""

    low: float
    high: float
    log: bool = False

    def suggest(self, trial: BaseTrial, name: str) -> Value:
        """The trial's choice."""
        return trial.suggest_float(name, self.low, self.high, log=self.log)


Choice = OneOf | WholeNumber | Between

MODEL: dict[str, Choice] = {
    "dim": OneOf(values=(32, 64, 96, 128)),
    "heads": OneOf(values=(1, 2, 4)),
    "long_layers": WholeNumber(low=1, high=3),
    "short_layers": WholeNumber(low=1, high=3),
    "dropout": Between(low=0.0, high=0.6),
    "encoder": OneOf(values=ENCODERS),
    "fusion": OneOf(values=FUSIONS),
}
"""Names are those of `ModelConfig`."""

FIT: dict[str, Choice] = {
    "learning_rate": Between(low=3e-4, high=1e-2, log=True),
    "weight_decay": Between(low=1e-6, high=1e-2, log=True),
    "drop_long": Between(low=0.0, high=0.4),
    "drop_recent": Between(low=0.0, high=0.4),
    "drop_ids": Between(low=0.0, high=0.4),
    "half_life_days": Between(low=7.0, high=730.0, log=True),
    "batch_examples": OneOf(values=(32, 64, 128, 256)),
}
"""Names are those of `FitConfig`."""


def suggest(trial: BaseTrial, base: Config) -> Config:
    """The configuration of a trial: `base` with every searched setting as the trial has it."""
    return replace(
        base,
        model=replace(base.model, **_suggested(trial, MODEL)),
        fit=replace(base.fit, **_suggested(trial, FIT)),
    )


def searched(config: Config) -> dict[str, Value]:
    """The searched settings of a configuration, by name; the inverse of `suggest`."""
    return {name: getattr(config.model, name) for name in MODEL} | {name: getattr(config.fit, name) for name in FIT}


def _suggested(trial: BaseTrial, choices: dict[str, Choice]) -> dict[str, Any]:
    return {name: choice.suggest(trial, name) for name, choice in choices.items()}
