"""Who is answered by which release: weights by a stable hash of the shopper, a shadow, and a canary that grows.

A split holds for one placement, or for all that have none of their own. The hash is of the experiment's name and the
shopper: the same shopper stays in the same arm, in every process and after every restart, and another experiment deals
anew.

An arm that grows loses no shopper. What it takes comes from the control, the first arm, and no other arm moves: always
with up to three arms, and with more as long as none but the control has over 25% (up to five arms) or 12.5%. Beyond
that a later arm gives way to an earlier one. For more than three arms no rule without a memory does without: the second
arm at 100 - w percent would have to leave w percent free, the same ones for the third arm and for the fourth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

MAX_ARMS: Final = 8
MAX_EXPERIMENT_CHARS: Final = 64
MAX_STEPS: Final = 20
MAX_COMPARED: Final = 10_000
"""Answers of each arm that are enough for the guardrails: those of older minutes of the step are left out."""
TOLERANCE: Final = 1e-6
"""By how much weights may miss 100."""
_PLACES: Final = (0.5, 0.25, 0.75, 0.125, 0.625)
"""Where the fourth arm and those after it begin."""


class TrafficError(ValueError):
    """A split is not well formed. `field` names what is wrong, the message its limit."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class TrafficNotPossible(Exception):
    """The releases are not in a state for it; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A release and its share of the shoppers in percent."""

    release: int
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Guardrails:
    """What a canary may cost; beyond it is rolled back. Rates are of its answers against the live release's."""

    max_error_rise: float = 0.01
    """By how much the share of answers for which its model failed may be greater."""
    max_p99_ratio: float = 1.5
    max_lower_tier_rise: float = 0.05
    """By how much the share of answers from beneath the highest tier may be greater."""
    alpha: float = 0.05
    """Chance that a canary which is as good is rolled back for its clicks."""
    least_answers: int = 200
    """Of each arm and step, from which on rates and p99 are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryPlan:
    """How a release takes over from the live one."""

    release: int
    steps: tuple[float, ...] = (1.0, 5.0, 25.0, 50.0)
    """Percent of the shoppers, ascending; after the last one it goes live."""
    step_minutes: float = 60.0
    """A step takes at least as long, and until the canary has given `Guardrails.least_answers`."""
    guardrails: Guardrails = field(default_factory=Guardrails)

    def to_json(self) -> dict[str, Any]:
        """As `of_json` reads it."""
        return asdict(self)

    @staticmethod
    def of_json(document: dict[str, Any]) -> CanaryPlan:
        """From the database."""
        steps, guardrails = tuple(document["steps"]), Guardrails(**document["guardrails"])
        return CanaryPlan(**{**document, "steps": steps, "guardrails": guardrails})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What somebody asks for one placement: arms, or a canary, and perhaps a shadow."""

    placement: str = ""
    """Empty: every placement without a split of its own."""
    experiment: str
    arms: tuple[Arm, ...] = ()
    """The first is what the others are compared with. Empty: the live release answers all."""
    canary: CanaryPlan | None = None
    shadow: int | None = None
    """A release that is asked beside, and whose answers nobody sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """What holds for a placement now."""

    placement: str
    experiment: str
    arms: tuple[Arm, ...]
    canary: CanaryPlan | None
    shadow: int | None
    stage: int
    """Number of the change that made it: shares are the same while it lasts."""
    step: int
    """Of the canary's, from 0 on."""
    stage_since_ms: int
    since_ms: int
    """When the experiment began."""
    start_position: int
    """Of the event log, when the experiment began."""

    @property
    def releases(self) -> set[int]:
        """All that take part."""
        return {arm.release for arm in self.arms} | ({self.shadow} if self.shadow is not None else set())

    def arm_of(self, shopper: str) -> int | None:
        """The release for a shopper's key; None where the live one answers all."""
        return arm_at(point_of(self.experiment, shopper), self.arms) if self.arms else None


def point_of(experiment: str, shopper: str) -> float:
    """Where a shopper's key falls between 0 and 1, the same for ever."""
    digest = hashlib.blake2b(f"{experiment}\0{shopper}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def arm_at(point: float, arms: Sequence[Arm]) -> int:
    """The release of the arm that a point falls into; by its place in the list, never by the number of arms."""
    for begin, end, release in _grounds(arms):
        if begin <= point < end:
            return release
    return arms[0].release


def _grounds(arms: Sequence[Arm]) -> list[tuple[float, float, int]]:
    """Begin, end and release of what the arms hold; the rest is the control's.

    The second arm grows from 0 upwards, the third from 1 downwards: they meet only where nothing is left.
    """
    low = arms[1].weight / 100
    high = 1 - arms[2].weight / 100 if len(arms) > 2 else 1.0
    found = [(0.0, low, arms[1].release), *((high, 1.0, arm.release) for arm in arms[2:3])]
    free = [(low, high)]
    for arm, place in zip(arms[3:], _PLACES, strict=False):
        taken, free = _take(free, place, arm.weight / 100)
        found += [(begin, end, arm.release) for begin, end in taken]
    return found


def _take(
    free: Sequence[tuple[float, float]], place: float, share: float
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Takes a share of what is free, from a place upwards and then from the lowest; what was taken, what is left."""
    above = [(max(begin, place), end) for begin, end in free if end > place]
    below = [(begin, min(end, place)) for begin, end in free if begin < place]
    taken, left = [], []
    for begin, end in sorted(above) + sorted(below):
        cut = min(end, begin + share)
        share -= cut - begin
        taken.append((begin, cut))
        left.append((cut, end))
    return taken, left


def canary_arms(live: int, plan: CanaryPlan, step: int) -> tuple[Arm, ...]:
    """The arms of a step."""
    share = plan.steps[step]
    return Arm(live, 100 - share), Arm(plan.release, share)


def check(wanted: Wanted) -> None:
    """Compares what is asked for with what can be asked for.

    Raises:
        TrafficError: it is not well formed.
    """
    if not wanted.experiment or len(wanted.experiment) > MAX_EXPERIMENT_CHARS:
        raise TrafficError("experiment", f"is empty or longer than {MAX_EXPERIMENT_CHARS} characters; name the split")
    if wanted.arms and wanted.canary:
        raise TrafficError("canary", "is set beside arms; a canary's arms are the live release and its own")
    if not wanted.arms and not wanted.canary and wanted.shadow is None:
        raise TrafficError("arms", "are empty and there is neither canary nor shadow; set one, or end the split")
    if wanted.arms:
        _check_arms(wanted.arms)
    if wanted.canary:
        _check_plan(wanted.canary)
    taking_part = {arm.release for arm in wanted.arms} | ({wanted.canary.release} if wanted.canary else set())
    if wanted.shadow in taking_part:
        raise TrafficError("shadow_release", f"{wanted.shadow} has an arm; a shadow's answers are seen by nobody")


def _check_arms(arms: Sequence[Arm]) -> None:
    if not 2 <= len(arms) <= MAX_ARMS:
        raise TrafficError("arms", f"are {len(arms)}; 2 to {MAX_ARMS} are allowed")
    if len({arm.release for arm in arms}) < len(arms):
        raise TrafficError("arms", "name a release twice; give each release one weight")
    for number, arm in enumerate(arms):
        if not 0 < arm.weight < 100:
            raise TrafficError(f"arms[{number}].weight", f"is {arm.weight:g}; above 0 and below 100 is allowed")
    total = sum(arm.weight for arm in arms)
    if abs(total - 100) > TOLERANCE:
        raise TrafficError("arms", f"have weights that sum to {total:g}; they are percent and must sum to 100")


def _check_plan(plan: CanaryPlan) -> None:
    if not 1 <= len(plan.steps) <= MAX_STEPS:
        raise TrafficError("canary.steps", f"are {len(plan.steps)}; 1 to {MAX_STEPS} are allowed")
    ascending = all(before < after for before, after in zip(plan.steps, plan.steps[1:], strict=False))
    if not ascending or not all(0 < step < 100 for step in plan.steps):
        raise TrafficError("canary.steps", "must ascend, each above 0 and below 100 percent")
    rails = plan.guardrails
    for name, value, least, most in (
        ("step_minutes", plan.step_minutes, 0.0, 43_200.0),
        ("guardrails.max_error_rise", rails.max_error_rise, 0.0, 1.0),
        ("guardrails.max_p99_ratio", rails.max_p99_ratio, 1.0, 100.0),
        ("guardrails.max_lower_tier_rise", rails.max_lower_tier_rise, 0.0, 1.0),
        ("guardrails.alpha", rails.alpha, 1e-6, 0.5),
        ("guardrails.least_answers", rails.least_answers, 1, MAX_COMPARED),
    ):
        if not least <= value <= most:
            raise TrafficError(f"canary.{name}", f"is {value:g}; {least:g} to {most:g} is allowed")
