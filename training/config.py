"""What a training run can choose, as two frozen dataclasses that travel in the checkpoint and in the manifest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar, get_type_hints

ENCODERS = ("transformer", "gru", "lstm")
FUSIONS = ("gate_mlp", "gate", "concat", "attention")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Shape of the fusion model. What is switched off is left out of fitting and serving alike."""

    dim: int = 64
    """D: item vectors, interest vectors, hidden states."""
    heads: int = 2
    long_layers: int = 1
    short_layers: int = 1
    """The last of them is computed for the newest event alone."""
    dropout: float = 0.4
    encoder: str = "transformer"
    """One of `ENCODERS`, for both strands."""
    fusion: str = "gate_mlp"
    """One of `FUSIONS`: an adaptive gate with a feed-forward net over both strands beside it, the gate alone, the net
    alone beside equal shares, or attention over the strands."""
    long: bool = True
    short: bool = True
    overlap: bool = False
    """Whether the short-term strand reads again what the long-term strand has read, or only what came after it."""
    content: bool = True
    """Category, brand, price and words of an item, beside its id."""
    time: bool = True
    """Gaps between events, ages, hour and weekday."""
    repeat: bool = True
    """Terms for the very items that a shopper bought before or has just seen."""
    transitions: bool = False
    """A term for the items that often came after the recent ones: better lists, where new items stand lower."""
    covisitation: bool = False
    """Mixes in what is often looked at together with the recent items: for short visits of many strangers."""

    def __post_init__(self) -> None:
        if self.heads < 1:
            raise ValueError(f"heads={self.heads}: at least 1")
        if self.dim < 8 or self.dim % self.heads:
            raise ValueError(f"dim={self.dim}: at least 8 and a multiple of heads={self.heads}")
        if self.long_layers < 1 or self.short_layers < 1:
            raise ValueError("long_layers and short_layers: at least 1 each")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout={self.dropout}: 0 or more and below 1")
        for name, known in (("encoder", ENCODERS), ("fusion", FUSIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: one of {', '.join(known)}")
        if not (self.long or self.short):
            raise ValueError("long and short: at least one of the strands")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """How the model is fitted."""

    seed: int = 0
    epochs: int = 5
    """At most; the learning rate falls along a cosine over all of them, to a tenth."""
    patience: int = 2
    """Epochs without a better validation NDCG@10 before fitting stops."""
    final_epochs: int = 1
    """Epochs over training and validation moments together, after the best epoch is restored, at the last rate."""
    refit: bool = False
    """Instead of them, a new model over both for as many epochs as were best: as long again, and items that only
    validation moments hold are learned like all others."""
    max_minutes: float = 4.0
    """No new epoch but the first is begun after this."""
    batch_examples: int = 64
    segment_examples: int = 16
    """Moments of one stretch of a shopper's history in one epoch."""
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    half_life_days: float = 90.0
    """An example counts half as much when it is this much older than the newest."""
    drop_long: float = 0.1
    """Share of examples trained without the long-term vector, as for a shopper that no job has encoded yet."""
    drop_recent: float = 0.1
    """Share of examples trained without recent events."""
    drop_codes: float = 0.1
    """Share of shopper and context codes set to unknown."""
    drop_ids: float = 0.1
    """Share of items whose id embedding is left out of a step, so that content alone means something."""
    drop_transitions: float = 0.3
    """Share of examples trained without the transition term, so that the strands and their gate mean something."""
    drop_gate: float = 0.5
    """Share of examples trained with equal shares of both strands, so that neither is forgotten for the other."""
    own_items_loss: float = 0.0
    """Weight of a second loss, on which of a shopper's own items comes again: for a log that knows purchases alone."""
    late_materialization: float = 0.3
    """Share of examples whose long-term strand ends 1 to 7 days earlier than the last midnight."""
    label_items: int = 100
    """At most so many target items of one moment."""
    full_softmax_items: int = 100_000
    """The largest catalogue whose every item enters every step; of a larger one a sample does."""

    def __post_init__(self) -> None:
        for name in (
            "drop_long",
            "drop_recent",
            "drop_codes",
            "drop_ids",
            "drop_transitions",
            "drop_gate",
            "late_materialization",
        ):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}={getattr(self, name)}: 0 or more and below 1")
        for name in ("learning_rate", "half_life_days"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name}={getattr(self, name)}: above 0")
        for name in ("epochs", "patience", "batch_examples", "segment_examples", "label_items", "full_softmax_items"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Both halves."""

    model: ModelConfig = field(default_factory=ModelConfig)
    fit: FitConfig = field(default_factory=FitConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and checkpoints."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Config:
        """The inverse of `to_dict`.

        Raises:
            ValueError: a field is unknown, missing, of another type or out of range; the message names it.
        """
        return Config(model=_part(ModelConfig, values, "model"), fit=_part(FitConfig, values, "fit"))


_Part = TypeVar("_Part", ModelConfig, FitConfig)

_BEFORE: dict[str, Any] = {
    "drop_transitions": 0.0,
    "drop_gate": 0.0,
    "own_items_loss": 0.0,
    "refit": False,
    "covisitation": False,
}
"""Fields that a configuration from before them lacks, and what it meant."""
_ABOVE_ZERO = ("heads", "learning_rate", "half_life_days")


def _part(kind: type[_Part], values: Any, part: str) -> _Part:
    """One half, from values of any kind."""
    given = values.get(part) if isinstance(values, Mapping) else None
    types = get_type_hints(kind)
    if not isinstance(given, Mapping):
        raise ValueError(f"{part}: expected an object with {', '.join(types)}")
    if unknown := sorted(given.keys() - types.keys()):
        raise ValueError(f"{part}.{unknown[0]}: unknown; expected {', '.join(types)}")
    given = {name: value for name, value in _BEFORE.items() if name in types} | dict(given)
    for name, wanted in types.items():
        if name not in given:
            raise ValueError(f"{part}.{name}: missing")
        value = given[name]
        if type(value) is not wanted and (type(value), wanted) != (int, float):
            raise ValueError(f"{part}.{name}={value!r}: expected {_KINDS[wanted]}")
        if wanted in (int, float) and not (0 <= value < math.inf and (value > 0 or name not in _ABOVE_ZERO)):
            raise ValueError(f"{part}.{name}={value!r}: {'above 0' if name in _ABOVE_ZERO else '0 or more'}")
    try:
        return kind(**given)
    except ValueError as error:
        raise ValueError(f"{part}.{error}") from None


_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
