"""Skew between serving and training: `python -m features skew` makes recorded answers again and compares.

Every tensor that the model saw is compared with the same tensor made of the offline files as of the answer's time,
by the same code (`features.answers.replay`). Answers younger than the offline events are not compared: build first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow.parquet as pq
from rich.table import Table
from sqlalchemy import Engine, func, select

from features.answers.answer_features import OtherSchema, decode
from features.answers.replay import IN_FLIGHT_MS, RecordedAnswer, Replay
from features.database.engine import DatabaseError, open_database
from features.database.models import Answer
from features.inputs.transform import Array
from features.offline.point_in_time import READ_TIME
from features.releases.release import ReleaseError, read_release
from features.schema import FUSION_MODEL
from features.settings import Settings

_ANSWERS_A_QUERY: Final = 500


class SkewError(DatabaseError):
    """Nothing can be compared; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSkew:
    """One tensor over all answers."""

    name: str
    answers: int
    differing: int
    largest: float
    """Greatest difference of a value, relative to the greater of 1 and the replayed one."""
    example: str
    """Token of an answer that differs most; empty where none does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkewReport:
    """What was compared, and what of it differs."""

    answers: int
    features: list[FeatureSkew]
    left_out: dict[str, int]
    """Why answers of the sample were not compared, and how many."""

    @property
    def skewed(self) -> list[FeatureSkew]:
        """The tensors that differ in some answer, most first."""
        return sorted((one for one in self.features if one.differing), key=lambda one: -one.differing)

    def table(self) -> Table:
        """The skewed tensors, as a person reads them."""
        table = Table(title=f"Skew in {self.answers:,} answers")
        for name in ("feature", "answers", "differ", "largest difference", "for example"):
            table.add_column(name, justify="left" if name in ("feature", "for example") else "right")
        for one in self.skewed:
            share = f"{one.differing / one.answers:.1%}"
            table.add_row(one.name, f"{one.answers:,}", share, f"{one.largest:.6g}", one.example)
        return table


def skew(settings: Settings, sample: int, tolerance: float) -> SkewReport:
    """Compares at most `sample` answers, drawn at random.

    Args:
        tolerance: a value may differ by this much, relative to the greater of 1 and itself.

    Raises:
        SkewError: there are no features or no answers to compare.
    """
    events = settings.offline / "events.parquet"
    metadata = pq.read_metadata(events).metadata if events.exists() else {}
    if READ_TIME.encode() not in metadata:
        raise SkewError(f"{events} is missing or of an older version; run `python -m features build` first")
    engine = open_database(settings.log_url)
    answers = _sample(engine, int(metadata[READ_TIME.encode()]) - IN_FLIGHT_MS, sample)
    engine.dispose()
    by_release: dict[int, list[RecordedAnswer]] = defaultdict(list)
    for answer in answers:
        by_release[answer.release].append(answer)
    left_out: Counter[str] = Counter()
    differences: dict[str, list[tuple[float, str]]] = defaultdict(list)
    compared = 0
    for number, group in sorted(by_release.items()):
        try:
            release = read_release(settings.model_repository / FUSION_MODEL / str(number))
        except ReleaseError:
            left_out[f"release {number} is not in the model repository"] += len(group)
            continue
        replay = Replay(settings.offline, release, group)
        for answer in group:
            try:
                found = _differences(replay, answer)
            except OtherSchema:
                left_out["recorded under another schema"] += 1
                continue
            compared += 1
            for name, difference in found.items():
                differences[name].append((difference, answer.attribution_token))
    if not compared:
        why = "; ".join(left_out) or "no answer of a model is older than the offline events"
        raise SkewError(f"no answer can be compared ({why}); run `python -m features build` after serving")
    features = [_feature(name, found, tolerance) for name, found in differences.items()]
    return SkewReport(answers=compared, features=features, left_out=dict(left_out))


def _differences(replay: Replay, answer: RecordedAnswer) -> dict[str, float]:
    """The difference of each tensor from the version that is nearest to it."""
    seen = decode(answer.features)
    nearest: dict[str, float] = {}
    for version in replay.versions(answer):
        for name, array in version.items():
            nearest[name] = min(nearest.get(name, np.inf), _difference(seen[name], array))
    return nearest


def _difference(seen: Array, replayed: Array) -> float:
    if seen.shape != replayed.shape:
        return np.inf
    replayed = replayed.astype(np.float64)
    return float((np.abs(seen - replayed) / np.maximum(np.abs(replayed), 1.0)).max(initial=0.0))


def _feature(name: str, found: list[tuple[float, str]], tolerance: float) -> FeatureSkew:
    largest, token = max(found)
    differing = sum(difference > tolerance for difference, _ in found)
    return FeatureSkew(
        name=name, answers=len(found), differing=differing, largest=largest, example=token if differing else ""
    )


def _sample(engine: Engine, before_ms: int, count: int) -> list[RecordedAnswer]:
    """At most `count` answers of a model from before a time, at random."""
    eligible = select(Answer.attribution_token).where(Answer.features.is_not(None), Answer.answered_time_ms < before_ms)
    columns = [Answer.attribution_token, Answer.answered_time_ms, Answer.release, Answer.request, Answer.features]
    found = []
    with engine.connect() as connection:
        tokens = list(connection.scalars(eligible.order_by(func.random()).limit(count)))
        for start in range(0, len(tokens), _ANSWERS_A_QUERY):
            chosen = Answer.attribution_token.in_(tokens[start : start + _ANSWERS_A_QUERY])
            found += [RecordedAnswer(**row._mapping) for row in connection.execute(select(*columns).where(chosen))]
    return found
