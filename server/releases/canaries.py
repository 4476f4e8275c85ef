"""Has canaries grow and rolls them back: the elected process looks every moment, and keeps all in the database."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Engine

from features.traffic.canary import Verdict, judge
from features.traffic.experiment import SETTLED_MS, FirstClickCount, first_clicks
from features.traffic.split import Split
from features.traffic.stage_figures import ArmFigures, StageFigures
from features.traffic.traffic_table import TrafficTable
from server.following import refresh_for_ever
from server.releases.election import Election

LOG = logging.getLogger(__name__)

LOOK_S = 2.0
RECORDED_BY = "gateway"
"""`who` of the changes that are made here."""


class Canaries:
    """Made in every process, at work in the elected one."""

    def __init__(self, engine: Engine, election: Election) -> None:
        self._engine = engine
        self._table = TrafficTable(engine)
        self._election = election
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="canaries")
        self._clicks: dict[tuple[str, int], FirstClickCount] = {}
        """By experiment and when it began."""
        self._figures: dict[int, StageFigures] = {}
        """By stage."""

    async def follow(self) -> None:
        """Looks for ever; what fails is logged once."""
        await refresh_for_ever(self._look, LOOK_S, LOG, "canaries stay as they are for now")

    async def _look(self) -> None:
        if self._election.won():
            await asyncio.get_running_loop().run_in_executor(self._thread, self._look_at_all)

    def close(self) -> None:
        """Ends the thread after the look under way."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _look_at_all(self) -> None:
        splits = self._table.splits()
        running = {(split.experiment, split.since_ms) for split in splits if split.canary}
        self._clicks = {key: count for key, count in self._clicks.items() if key in running}
        stages = {split.stage for split in splits if split.canary}
        self._figures = {stage: figures for stage, figures in self._figures.items() if stage in stages}
        for split in splits:
            if self._table.end_if_stranded(split, RECORDED_BY):
                LOG.warning("experiment=%s has ended: its releases have moved on", split.experiment)
            elif split.canary is not None:
                self._act(split, self._verdict(split))

    def _verdict(self, split: Split) -> Verdict:
        now_ms = time.time_ns() // 1_000_000
        key = split.experiment, split.since_ms
        if key not in self._clicks:
            self._clicks[key] = FirstClickCount(self._engine, split.experiment, split.start_position)
        self._clicks[key].advance(now_ms - SETTLED_MS)
        stages = self._table.stages(split.experiment)
        live, canary = (arm.release for arm in split.arms)
        clicks = first_clicks(self._clicks[key].counts, stages, live, canary)
        return judge(split, *self._figures_of(split, now_ms), clicks, now_ms)

    def _figures_of(self, split: Split, now_ms: int) -> tuple[ArmFigures, ArmFigures]:
        """The live release's and the canary's in the step."""
        if split.stage not in self._figures:
            live, canary = (arm.release for arm in split.arms)
            self._figures[split.stage] = StageFigures(
                self._engine, split.experiment, split.stage, split.stage_since_ms, control=live, treatment=canary
            )
        self._figures[split.stage].advance(now_ms)
        return self._figures[split.stage].figures()

    def _act(self, split: Split, verdict: Verdict) -> None:
        if verdict.action == "roll back" and self._table.roll_back(split, RECORDED_BY, verdict.why):
            LOG.error("experiment=%s is rolled back: %s", split.experiment, verdict.why)
        elif verdict.action == "grow" and self._table.grow(split, RECORDED_BY, verdict.why):
            LOG.info("experiment=%s grows: %s", split.experiment, verdict.why)
