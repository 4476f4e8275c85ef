"""What one gateway process holds in memory and what it calls: the parts that every answer is made from."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from features.answers import NewAnswer
from features.schema import OWN_ITEMS, Tier
from features.shopper import Shopper, ShopperFeatures, ShopperQuery, merge
from server.answer_recorder import AnswerRecorder
from server.attribution import new_token
from server.catalogue_index import CatalogueIndex
from server.deadline import Deadline
from server.errors import FeaturesUnavailable
from server.feature_reader import FeatureReader
from server.filters import Sellable
from server.infer import Model
from server.metrics import STALE_INTERESTS
from server.popularity import PopularItems
from server.purchase_history import PurchaseHistory
from server.queries import ItemFilter
from server.release_follower import ReleaseFollower
from server.triton import FusionRequest

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """One object a process."""

    index: CatalogueIndex
    sellable: Sellable
    popular: PopularItems
    features: FeatureReader
    releases: ReleaseFollower
    model: Model
    history: PurchaseHistory
    recorder: AnswerRecorder
    feature_budget_s: float

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
        )
        self.recorder.record(answer)
        return answer

    async def bought_item_ids(
        self, shopper: Shopper, query: ShopperQuery, item_filter: ItemFilter, deadline: Deadline
    ) -> list[str]:
        """What `exclude_purchased` leaves out; the log is asked where a row of the feature store is full."""
        bought = shopper.bought_ms
        if len(shopper.purchases) >= OWN_ITEMS:
            try:
                bought = await self.history.bought_ms(query.keys, deadline.left_s(self.feature_budget_s)) | bought
            except (SQLAlchemyError, asyncio.TimeoutError) as error:
                LOG.warning("purchases beyond the newest %d are unknown for one answer: %r", OWN_ITEMS, error)
        window_ms = item_filter.repurchase_window_ms
        since_ms = -(2**62) if window_ms is None else query.now_ms - window_ms
        return [item_id for item_id, time_ms in bought.items() if time_ms >= since_ms]
