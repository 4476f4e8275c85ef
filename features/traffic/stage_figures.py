"""What the recorded answers of a canary's stage say of its two arms: failures, tiers and latencies, minute by minute.

Both arms are compared over the same minutes. A canary at 1% gives a hundredth of the answers: the newest ten thousand
of each arm would be of an hour in one and of two minutes in the other, and what befell both would be held against the
canary long after the live release's answers have forgotten it.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Engine, Integer, cast, func, select

from features.database.models import Answer
from features.schema import Tier
from features.traffic.split import MAX_COMPARED

_MINUTE_MS: Final = 60_000
_READ_AGAIN: Final = 1
"""Minutes before the newest that are read again: an answer is recorded a while after it was given."""
_PARTS_OF_MS: Final = 10
"""Latencies are told apart by tenths of a millisecond."""

_Kind = tuple[bool, bool, int]
"""Whether its model failed, whether it is from beneath the highest tier, and its latency in parts of a millisecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFigures:
    """The answers of one arm in some minutes.

    latencies_ms: float64 (n,), ascending. times: int64 (n,), the answers that took each.
    """

    answers: int
    failed: int
    """Its model did not answer."""
    lower: int
    """From beneath the highest tier."""
    shoppers: int
    """To whom they were given; 0 of the control, where it is not counted."""
    latencies_ms: npt.NDArray[np.float64]
    times: npt.NDArray[np.int64]

    @staticmethod
    def of(kinds: Counter[_Kind], shoppers: int) -> ArmFigures:
        """From counts by kind of answer."""
        took: Counter[int] = Counter()
        for (_, _, part), count in kinds.items():
            took[part] += count
        parts = sorted(took)
        return ArmFigures(
            answers=kinds.total(),
            failed=sum(count for (failed, _, _), count in kinds.items() if failed),
            lower=sum(count for (_, lower, _), count in kinds.items() if lower),
            shoppers=shoppers,
            latencies_ms=np.array(parts, np.float64) / _PARTS_OF_MS,
            times=np.array([took[part] for part in parts], np.int64),
        )

    @property
    def p99_ms(self) -> float:
        """What 99% of the answers took at most; 0 where there are none."""
        if not self.answers:
            return 0.0
        return float(self.latencies_ms[np.searchsorted(self.times.cumsum(), 0.99 * self.answers)])

    def slower_than(self, limit_ms: float) -> int:
        """Answers that took longer."""
        return int(self.times[self.latencies_ms > limit_ms].sum())


class StageFigures:
    """Follows the answers of one stage; holds as many minutes as give both arms `MAX_COMPARED` answers."""

    def __init__(
        self, engine: Engine, experiment: str, stage: int, since_ms: int, *, control: int, treatment: int
    ) -> None:
        """From the stage's beginning at `since_ms`; the arms are releases."""
        self._engine = engine
        self._experiment = experiment
        self._stage = stage
        self._arms = (control, treatment)
        self._from_ms = since_ms
        self._kinds: dict[int, dict[int, Counter[_Kind]]] = {}
        """By minute and arm."""
        self._shoppers: dict[int, set[bytes]] = {}
        """Of the treatment, by minute; digests, so that an erased key lives on no more."""

    def advance(self, now_ms: int) -> None:
        """Takes in what was recorded by now."""
        if not self._kinds:
            self._from_ms = self._enough_since_ms()
        kinds: defaultdict[int, dict[int, Counter[_Kind]]] = defaultdict(lambda: {arm: Counter() for arm in self._arms})
        shoppers: defaultdict[int, set[bytes]] = defaultdict(set)
        minute = (Answer.answered_time_ms // _MINUTE_MS).label("minute")
        kind = (
            Answer.model_failed.label("failed"),
            (Answer.tier != Tier.FULL).label("lower"),
            cast(Answer.latency_ms * _PARTS_OF_MS, Integer).label("part"),
        )
        counted = select(minute, Answer.arm, *kind, func.count()).where(*self._given_by(self._arms))
        treated = select(minute, Answer.shopper).where(*self._given_by(self._arms[1:])).distinct()
        with self._engine.connect() as connection:
            for at, arm, failed, lower, part, count in connection.execute(counted.group_by(minute, Answer.arm, *kind)):
                assert arm is not None, "it is among those asked for"
                kinds[at][arm][bool(failed), bool(lower), part] += count
            for at, shopper in connection.execute(treated):
                shoppers[at].add(hashlib.blake2b(shopper.encode(), digest_size=8).digest())
        self._kinds |= kinds
        self._shoppers |= shoppers
        self._from_ms = max(self._from_ms, (now_ms // _MINUTE_MS - _READ_AGAIN) * _MINUTE_MS)
        self._forget()

    def figures(self) -> tuple[ArmFigures, ArmFigures]:
        """The control's and the treatment's, over the same minutes."""
        control, treatment = (sum((arms[arm] for arms in self._kinds.values()), Counter[_Kind]()) for arm in self._arms)
        return ArmFigures.of(control, 0), ArmFigures.of(treatment, len(set().union(*self._shoppers.values())))

    def _enough_since_ms(self) -> int:
        """The beginning of a minute from which on both arms have enough answers, or of the stage.

        Whoever takes the stage over does not read all of it: that may be days of answers.
        """
        newest_first = select(Answer.answered_time_ms).order_by(Answer.answered_time_ms.desc())
        last_wanted = newest_first.offset(MAX_COMPARED - 1).limit(1)
        with self._engine.connect() as connection:
            times_ms = [connection.scalar(last_wanted.where(*self._given_by([arm]))) for arm in self._arms]
        return max(self._from_ms, min(time_ms or 0 for time_ms in times_ms) // _MINUTE_MS * _MINUTE_MS)

    def _given_by(self, arms: Sequence[int]) -> tuple[ColumnElement[bool], ...]:
        """The answers that are still to be read."""
        return (
            Answer.experiment == self._experiment,
            Answer.answered_time_ms >= self._from_ms,
            Answer.stage == self._stage,
            Answer.arm.in_(arms),
        )

    def _forget(self) -> None:
        """Minutes before those that give both arms enough."""
        answers = dict.fromkeys(self._arms, 0)
        for minute in sorted(self._kinds, reverse=True):
            if min(answers.values()) >= MAX_COMPARED:
                del self._kinds[minute]
                self._shoppers.pop(minute, None)
                continue
            for arm, kinds in self._kinds[minute].items():
                answers[arm] += kinds.total()
