"""Which release answers a request: the splits, followed in the database and kept in memory, and a shopper's arm."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

from sqlalchemy import Engine

from features.answers.answers import Trial
from features.inputs.shopper import ShopperQuery
from features.traffic.split import Split
from features.traffic.traffic_table import TrafficTable
from server.following import Counters, FollowedTable
from server.releases.loaded_release import LoadedRelease
from server.releases.release_follower import ReleaseFollower


@dataclass(frozen=True, slots=True)
class Choice:
    """Who answers, and who is asked beside."""

    release: LoadedRelease | None
    """None where none serves."""
    trial: Trial | None = None
    """The experiment that the shopper is in, if any."""
    shadow: LoadedRelease | None = None
    experiment: str = ""
    """Of the split with the shadow."""


class Traffic(FollowedTable[list[Split]]):
    """Follows the table; `choose` reads memory alone."""

    def __init__(self, engine: Engine, releases: ReleaseFollower, counters: Counters, threads: Executor) -> None:
        super().__init__(TrafficTable(engine), counters, threads, name="the splits of the traffic")
        self._releases = releases
        self._splits: dict[str, Split] = {}

    def choose(self, query: ShopperQuery, placement: str = "") -> Choice:
        """The release for a shopper at a placement; a split with an arm that is not held ready is not in force."""
        live = self._releases.current
        if not self._splits or live is None:
            return Choice(live)
        split = self._splits.get(placement) or self._splits.get("")
        if split is None or not query.keys:
            return Choice(live)
        held = self._releases.loaded
        shadow = held.get(split.shadow) if split.shadow is not None else None
        if not split.arms or any(arm.release not in held for arm in split.arms):
            return Choice(live, None, shadow, split.experiment)
        arm = split.arm_of(query.keys[0])
        assert arm is not None
        return Choice(held[arm], Trial(split.experiment, split.stage, arm), shadow, split.experiment)

    def take(self, rows: list[Split]) -> None:
        """The splits."""
        self._splits = {split.placement: split for split in rows}
