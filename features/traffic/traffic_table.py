"""The splits in the database, and every change of them with who, when and why; the gateways follow `changed_since`.

A candidate that gets an arm is a canary as long as it has one: the gateways hold it ready. A counter grows with every
change, as that of the placement rules does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from sqlalchemy import Connection, Engine, delete, func, insert, select

from features.database.counters import add_to_counter, changed_since
from features.database.engine import upsert
from features.database.models import Event, TrafficChange, TrafficSplit
from features.releases.release_table import give_state, keep_as_candidate, lock_releases, read_standing, state_of
from features.traffic.split import Arm, CanaryPlan, Split, TrafficError, TrafficNotPossible, Wanted, canary_arms, check

_COUNTER: Final = "traffic_revision"
Outcome = Literal["set", "grown", "promoted", "rolled_back", "ended"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotedChange:
    """One change of a split."""

    stage: int
    placement: str
    experiment: str
    outcome: Outcome
    arms: tuple[Arm, ...]
    """From then on."""
    shadow: int | None
    changed_time_ms: int
    who: str
    why: str


class TrafficTable:
    """Reads and changes the tables; each method is one transaction."""

    counter: Final = _COUNTER
    """Of its changes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def set(self, wanted: Wanted, who: str, why: str) -> Split:
        """Makes a split hold for its placement, in place of the one that did.

        Raises:
            TrafficError: it is not well formed, or its experiment is another placement's.
            ReleaseError: there is no such release.
            TrafficNotPossible: a release is not held ready, or none is live.
        """
        check(wanted)
        with self._engine.begin() as connection:
            lock_releases(connection)
            standing = read_standing(connection)
            if standing.live is None:
                raise TrafficNotPossible("no release is live; promote one: python -m training release promote N")
            arms = wanted.arms
            if wanted.canary is not None:
                if wanted.canary.release == standing.live:
                    raise TrafficNotPossible(f"release {standing.live} is live already; a canary is another release")
                arms = canary_arms(standing.live, wanted.canary, 0)
            held = {standing.live, *standing.spares}
            for release in [arm.release for arm in arms] + ([] if wanted.shadow is None else [wanted.shadow]):
                state = state_of(connection, release)
                if release not in held:
                    raise TrafficNotPossible(
                        f"release {release} is {state} and not held ready; load it first: "
                        f"python -m training release load {release}"
                    )
            before = {split.placement: split for split in _splits(connection)}
            for split in before.values():
                if split.experiment == wanted.experiment and split.placement != wanted.placement:
                    raise TrafficError(
                        "experiment", f"{wanted.experiment!r} runs at placement {split.placement!r}; end it or rename"
                    )
            stage = _note(connection, wanted.placement, wanted.experiment, "set", arms, wanted.shadow, who, why)
            now_ms = _now_ms()
            same = before.get(wanted.placement)
            goes_on = same is not None and same.experiment == wanted.experiment
            split = Split(
                placement=wanted.placement,
                experiment=wanted.experiment,
                arms=arms,
                canary=wanted.canary,
                shadow=wanted.shadow,
                stage=stage,
                step=0,
                stage_since_ms=now_ms,
                since_ms=same.since_ms if same is not None and goes_on else now_ms,
                start_position=same.start_position if same is not None and goes_on else _last_position(connection),
            )
            upsert(connection, TrafficSplit, [_row(split)], key=["placement"])
            for arm in arms:
                if state_of(connection, arm.release) == "candidate":
                    give_state(connection, arm.release, "canary", who, f"experiment {wanted.experiment}: {why}")
            if same is not None:
                _release_arms(connection, same, who, f"left experiment {same.experiment}: {why}")
            add_to_counter(connection, _COUNTER, 1)
            return split

    def end(self, placement: str, who: str, why: str) -> Split:
        """Ends a placement's split: the live release answers all again, canaries are candidates again.

        Raises:
            TrafficNotPossible: it has none.
        """
        with self._engine.begin() as connection:
            lock_releases(connection)
            for split in _splits(connection):
                if split.placement == placement:
                    _end(connection, split, "ended", who, why)
                    return split
        raise TrafficNotPossible(f"placement {placement!r} has no split of its own")

    def grow(self, split: Split, who: str, why: str) -> bool:
        """Takes a canary to its next step, or makes it live after the last; False where the split has changed."""
        plan = split.canary
        assert plan is not None
        with self._engine.begin() as connection:
            lock_releases(connection)
            if not _stands(connection, split):
                return False
            if split.step + 1 == len(plan.steps):
                give_state(connection, plan.release, "live", who, f"experiment {split.experiment}: {why}")
                _end(connection, split, "promoted", who, why)
                return True
            arms = canary_arms(split.arms[0].release, plan, split.step + 1)
            stage = _note(connection, split.placement, split.experiment, "grown", arms, split.shadow, who, why)
            grown = replace(split, arms=arms, stage=stage, step=split.step + 1, stage_since_ms=_now_ms())
            upsert(connection, TrafficSplit, [_row(grown)], key=["placement"])
            add_to_counter(connection, _COUNTER, 1)
            return True

    def roll_back(self, split: Split, who: str, why: str) -> bool:
        """Ends a canary that has failed, with its release; False where the split has changed meanwhile."""
        plan = split.canary
        assert plan is not None
        with self._engine.begin() as connection:
            lock_releases(connection)
            if not _stands(connection, split):
                return False
            if state_of(connection, plan.release) != "live":
                give_state(connection, plan.release, "failed", who, f"experiment {split.experiment}: {why}")
            _end(connection, split, "rolled_back", who, why)
            return True

    def end_if_stranded(self, split: Split, who: str) -> bool:
        """Ends a split that can no longer mean what it says; True if it did.

        An arm or the shadow is no longer held ready, or the live release that a canary is compared with has changed.
        """
        with self._engine.begin() as connection:
            lock_releases(connection)
            if not _stands(connection, split):
                return False
            standing = read_standing(connection)
            gone = sorted(split.releases - {standing.live, *standing.spares})
            if gone:
                why = f"release {gone[0]} is no longer held ready"
            elif split.canary is not None and split.arms[0].release != standing.live:
                why = f"release {split.arms[0].release}, which the canary was compared with, is no longer live"
            else:
                return False
            _end(connection, split, "ended", who, why)
            return True

    def splits(self) -> list[Split]:
        """All that hold, by placement."""
        with self._engine.connect() as connection:
            return _splits(connection)

    def changed_since(self, revision: int) -> tuple[list[Split], int] | None:
        """All splits and their revision; None where that is `revision` still."""
        return changed_since(self._engine, _COUNTER, revision, self.splits)

    def stages(self, experiment: str) -> dict[int, tuple[Arm, ...]]:
        """The arms of each stage that an experiment had."""
        query = select(TrafficChange.stage, TrafficChange.arms).where(TrafficChange.experiment == experiment)
        with self._engine.connect() as connection:
            found = {stage: _arms(arms) for stage, arms in connection.execute(query.order_by(TrafficChange.stage))}
        return {stage: arms for stage, arms in found.items() if arms}

    def changes(self, limit: int = 100) -> list[NotedChange]:
        """The newest changes, oldest of them first."""
        query = select(TrafficChange.__table__).order_by(TrafficChange.stage.desc()).limit(limit)
        with self._engine.connect() as connection:
            rows = [dict(row._mapping) for row in connection.execute(query)]
        return [NotedChange(**row | {"arms": _arms(row["arms"])}) for row in reversed(rows)]


def _end(connection: Connection, split: Split, outcome: Outcome, who: str, why: str) -> None:
    _note(connection, split.placement, split.experiment, outcome, (), None, who, why)
    connection.execute(delete(TrafficSplit).where(TrafficSplit.placement == split.placement))
    _release_arms(connection, split, who, f"experiment {split.experiment} has ended: {why}")
    add_to_counter(connection, _COUNTER, 1)


def _release_arms(connection: Connection, split: Split, who: str, why: str) -> None:
    """Canaries that have no arm any more are candidates again, and stay held ready."""
    used = {arm.release for other in _splits(connection) for arm in other.arms}
    for arm in split.arms:
        if arm.release not in used and state_of(connection, arm.release) == "canary":
            keep_as_candidate(connection, arm.release, "canary", who, why)


def _stands(connection: Connection, split: Split) -> bool:
    query = select(TrafficSplit.stage).where(TrafficSplit.placement == split.placement)
    return connection.scalar(query) == split.stage


def _splits(connection: Connection) -> list[Split]:
    query = select(TrafficSplit.__table__).order_by(TrafficSplit.placement)
    return [_split(dict(row._mapping)) for row in connection.execute(query)]


def _split(row: dict[str, Any]) -> Split:
    plan = CanaryPlan.of_json(row["canary"]) if row["canary"] else None
    return Split(**row | {"arms": _arms(row["arms"]), "canary": plan})


def _arms(pairs: Sequence[Sequence[float]]) -> tuple[Arm, ...]:
    return tuple(Arm(int(release), weight) for release, weight in pairs)


def _row(split: Split) -> dict[str, Any]:
    row = {column.name: getattr(split, column.name) for column in TrafficSplit.__table__.columns}
    arms = [[arm.release, arm.weight] for arm in split.arms]
    return row | {"arms": arms, "canary": split.canary.to_json() if split.canary else None}


def _note(
    connection: Connection,
    placement: str,
    experiment: str,
    outcome: Outcome,
    arms: Sequence[Arm],
    shadow: int | None,
    who: str,
    why: str,
) -> int:
    """Notes a change; returns its number."""
    values = {
        "placement": placement,
        "experiment": experiment,
        "outcome": outcome,
        "arms": [[arm.release, arm.weight] for arm in arms],
        "shadow": shadow,
        "changed_time_ms": _now_ms(),
        "who": who,
        "why": why,
    }
    return int(connection.execute(insert(TrafficChange).values(values).returning(TrafficChange.stage)).scalar_one())


def _last_position(connection: Connection) -> int:
    return connection.scalar(select(func.max(Event.position))) or 0


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
