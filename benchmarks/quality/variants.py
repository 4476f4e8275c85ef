"""The models of the bench by name. Ours and its ablations are each the task's configuration with one thing changed,
fitted on its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from training.baselines import BASELINES
from training.config import Config

Variant = Callable[[Config], Config]


class UnknownModel(ValueError):
    """A name that is neither a model nor a group; the message lists both."""


def _model(**changes: Any) -> Variant:
    return lambda config: replace(config, model=replace(config.model, **changes))


PEER, PATIENT_PEER = "RecTools SASRec", "RecTools SASRec converged"
"""The peer from outside, in an environment of its own: with at most the epochs that our model has, and with as many as
help it.
"""
PEERS = (PEER, PATIENT_PEER)

FUSED, LONG_ONLY, SHORT_ONLY = "fused", "long-term only", "short-term only"

OURS: dict[str, Variant] = {
    FUSED: _model(),
    LONG_ONLY: _model(long=True, short=False),
    SHORT_ONLY: _model(long=False, short=True),
}
ABLATIONS: dict[str, Variant] = {
    "no content": _model(content=False),
    "no time": _model(time=False),
    "no repeat term": _model(repeat=False),
    "transition term": _model(transitions=True),
    "no transition term": _model(transitions=False),
    "co-visitation": _model(covisitation=True),
    "no co-visitation": _model(covisitation=False),
    "LSTM encoder": _model(encoder="lstm"),
    "GRU encoder": _model(encoder="gru"),
    "Transformer encoder": _model(encoder="transformer"),
    "concat fusion": _model(fusion="concat"),
    "gate fusion": _model(fusion="gate"),
    "gate and mlp fusion": _model(fusion="gate_mlp"),
    "attention fusion": _model(fusion="attention"),
}
VARIANTS: dict[str, Variant] = OURS | ABLATIONS
"""Name to the change. One that changes nothing shares the result of the model that it equals."""

GROUPS: dict[str, tuple[str, ...]] = {
    "baselines": tuple(BASELINES),
    "ours": tuple(OURS),
    "ablations": tuple(ABLATIONS),
    "peer": PEERS,
}


def chosen(models: str) -> list[str]:
    """The model names of a list like `baselines,fused,no-time`; case counts for nothing, a hyphen is a space.

    Raises:
        UnknownModel: a name is unknown.
    """
    known = {_plain(name): name for names in GROUPS.values() for name in names}
    found: list[str] = []
    for word in models.split(","):
        group = GROUPS.get(word.strip().lower())
        if group is None and _plain(word) not in known:
            raise UnknownModel(
                f"--models: {word.strip()!r} is not known; groups are {', '.join(GROUPS)}; models are "
                f"{', '.join(known.values())}"
            )
        found += group or (known[_plain(word)],)
    return list(dict.fromkeys(found))


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "-")
