"""Answers of models, kept so that a stopped run goes on: one JSON and one npz for each model and seed.

They lie in `benchmarks/results/quality/<task>/`, named by a hash of everything that decides them: the model's
configuration, the seed, the sizes of the data files and `FORMAT`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.quality.configurations import configuration, peer_settings
from benchmarks.quality.folders import SplitBy
from benchmarks.quality.ranking import Answers
from benchmarks.quality.task import Task
from benchmarks.quality.variants import PEER, PEERS, VARIANTS
from training.config import Config

FORMAT = 4
"""Raised whenever the same configuration may give other answers: readers, protocols, methods, fitting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One model with one seed on one set of data.

    cache: the folder of all tasks' results. config: of our models, the task's own by default.
    """

    data: str
    split_by: SplitBy
    cache: Path
    task: str
    model: str
    seed: int
    device: str
    config: Config | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What the model is, apart from the data."""
        if self.model in VARIANTS:
            config = VARIANTS[self.model](self.config or configuration(self.task)).to_dict()
            config["fit"]["seed"] = self.seed
            return {"configuration": config, "device": self.device}
        if self.model in PEERS:
            settings = peer_settings(self.task, as_ours=self.model == PEER)
            return {"peer": asdict(replace(settings, seed=self.seed))}
        return {"baseline": self.model}

    def path(self, task: Task) -> Path:
        """Where the facts lie; the arrays stand beside, as `.npz`, and our model's weights, as `.pt`."""
        parts = {"format": FORMAT, "files": [path.stat().st_size for path in task.files], **self.identity}
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        return self.cache / self.task / "answers" / f"{digest}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """answers: to the final stage's test. facts: seconds, parameters, peak_bytes, and what was chosen on the way."""

    answers: Answers
    facts: dict[str, Any]


def load(path: Path) -> Result | None:
    """A kept result, None if there is none."""
    if not path.exists():
        return None
    with np.load(path.with_suffix(".npz")) as arrays:
        answers = Answers(ranked=arrays["ranked"], probabilities=arrays.get("probabilities"))
    return Result(answers=answers, facts=json.loads(path.read_text()))


def save(path: Path, result: Result) -> None:
    """Writes the arrays, then the facts, each beside and renamed: where the facts are, the result is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, npt.NDArray[Any]] = {"ranked": result.answers.ranked}
    if result.answers.probabilities is not None:
        arrays["probabilities"] = result.answers.probabilities
    beside = path.with_suffix(".part.npz")
    np.savez_compressed(beside, allow_pickle=False, **arrays)
    beside.replace(path.with_suffix(".npz"))
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(result.facts, indent=1) + "\n")
    beside.replace(path)
