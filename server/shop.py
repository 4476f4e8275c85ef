"""What one gateway process holds in memory and what it calls: the parts that every answer is made from."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from features.answers.answers import NewAnswer, Trial
from features.inputs.shopper import Shopper, ShopperFeatures, ShopperQuery, merge
from features.schema import OWN_ITEMS, Tier
from server.catalogue.catalogue_index import CatalogueIndex
from server.deadline import Deadline
from server.errors import FeaturesUnavailable, HistoryUnavailable
from server.hydrate.feature_reader import FeatureReader
from server.hydrate.fusion_request import FusionRequest
from server.hydrate.purchase_history import PurchaseHistory
from server.hydrate.shown_history import ShownHistory
from server.infer.model import Model
from server.metrics import STALE_INTERESTS, count_answer
from server.queries import ItemFilter
from server.record.answer_recorder import AnswerRecorder
from server.record.attribution import new_token
from server.releases.release_follower import ReleaseFollower
from server.releases.shadow_queue import ShadowQueue
from server.releases.traffic import Traffic
from server.select.filter_masks import FilterMasks
from server.select.filters import Excluded, Sellable, excluded
from server.select.placement_rules import PlacementRules
from server.select.popularity import PopularItems

LOG = logging.getLogger(__name__)

_DAY_MS = 86_400_000


@dataclass(slots=True)
class Course:
    """How one request goes: the experiment that it belongs to, and whether its arm's model has failed."""

    trial: Trial | None
    began_s: float = field(default_factory=time.monotonic)
    model_failed: bool = False

    @property
    def took_ms(self) -> float:
        """Since it began."""
        return 1000 * (time.monotonic() - self.began_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """One object a process."""

    index: CatalogueIndex
    sellable: Sellable
    masks: FilterMasks
    rules: PlacementRules
    popular: PopularItems
    features: FeatureReader
    releases: ReleaseFollower
    traffic: Traffic
    shadows: ShadowQueue
    model: Model
    history: PurchaseHistory
    shown: ShownHistory
    recorder: AnswerRecorder
    exploration_rate: float
    """Share of pages that give a place to an item that has hardly been seen."""

    async def shopper(self, query: ShopperQuery, release: int, deadline: Deadline) -> Shopper:
        """The shopper with the long-term vector of `release`; without a feature store, what the request says."""
        rows: Sequence[ShopperFeatures] = ()
        if query.keys:
            try:
                rows = await self.features.read(query.keys, release, deadline)
            except FeaturesUnavailable as error:
                LOG.debug("answering without features: %s", error)
        shopper = merge(rows, query)
        if shopper.interest_stale:
            STALE_INTERESTS.inc()
        return shopper

    def remember(
        self,
        query: ShopperQuery,
        shopper: Shopper,
        tier: Tier,
        request: FusionRequest | None,
        *,
        course: Course,
        options: Mapping[str, Any],
        placement: str = "",
        item_ids: Sequence[str] = (),
    ) -> NewAnswer:
        """Names an answer and has it recorded.

        Args:
            request: what went to the model; None where none answered.
            options, placement, item_ids: as in `NewAnswer`.
        """
        release = request.release if request else 0
        answer = NewAnswer(
            attribution_token=new_token(release, tier),
            query=query,
            placement=placement,
            options=options,
            release=release,
            tier=tier,
            item_ids=item_ids,
            stored=shopper.stored,
            inputs=request.shopper_inputs if request else None,
            trial=course.trial,
            model_failed=course.model_failed,
            latency_ms=course.took_ms,
        )
        self.recorder.record(answer)
        count_answer(tier.name, release)
        return answer

    async def bought_item_ids(
        self, shopper: Shopper, query: ShopperQuery, item_filter: ItemFilter, deadline: Deadline
    ) -> list[str]:
        """What `exclude_purchased` leaves out; the log is asked where no row was read, or it is full."""
        bought = shopper.bought_ms
        if not shopper.stored or len(shopper.purchases) >= OWN_ITEMS:
            try:
                logged = await self.history.bought_ms(query.keys, deadline)
                bought = logged | {key: max(time_ms, logged.get(key, time_ms)) for key, time_ms in bought.items()}
            except HistoryUnavailable as error:
                LOG.debug("answering without some of what was bought: %s", error)
        window_ms = item_filter.repurchase_window_ms
        since_ms = -(2**62) if window_ms is None else query.now_ms - window_ms
        return [item_id for item_id, time_ms in bought.items() if time_ms >= since_ms]

    async def shown_item_ids(self, query: ShopperQuery, deadline: Deadline) -> set[str]:
        """What `exclude_shown_today` leaves out: what was answered since the shopper's last midnight."""
        local_ms = query.now_ms if query.context.local_time_ms is None else query.context.local_time_ms
        since_ms = query.now_ms - local_ms % _DAY_MS
        found = self.recorder.unwritten_item_ids(query.keys, query.session_id, since_ms)
        try:
            found |= await self.shown.shown_item_ids(query.keys, query.session_id, since_ms, deadline)
        except HistoryUnavailable as error:
            LOG.debug("answering without what was shown today: %s", error)
        return found

    async def left_out(
        self, shopper: Shopper, query: ShopperQuery, item_filter: ItemFilter, deadline: Deadline
    ) -> Excluded:
        """What the filter leaves out by name for this shopper."""
        bought: Sequence[str] = ()
        shown: Sequence[str] = ()
        if item_filter.exclude_purchased:
            bought = await self.bought_item_ids(shopper, query, item_filter, deadline)
        if item_filter.exclude_shown_today:
            shown = list(await self.shown_item_ids(query, deadline))
        return excluded(self.index, item_filter, self.index.rows(bought), self.index.rows(shown))
