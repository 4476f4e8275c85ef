"""One gateway process: its parts put together, started in order, and ended without losing a call."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from braid.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    placement_pb2,
    placement_pb2_grpc,
    recommendation_pb2,
    recommendation_pb2_grpc,
    release_pb2,
    release_pb2_grpc,
    user_pb2,
    user_pb2_grpc,
)
from features.database.engine import open_database
from features.erasure.tombstones import Tombstones
from features.settings import Settings
from server.catalogue.catalogue_follower import CatalogueFollower
from server.catalogue.catalogue_index import CatalogueIndex
from server.hydrate.feature_reader import FeatureReader
from server.hydrate.purchase_history import PurchaseHistory
from server.hydrate.shown_history import ShownHistory
from server.infer.breaker import Breakers
from server.infer.model import Model
from server.infer.triton import Triton
from server.metrics import serve_metrics
from server.overload import self_probe
from server.overload.admission import Admission, CallLimit
from server.record.answer_recorder import AnswerRecorder
from server.record.eraser import Eraser
from server.record.event_writer import EventWriter
from server.record.shop_records import ShopRecords
from server.releases.canaries import Canaries
from server.releases.election import Election
from server.releases.release_control import ReleaseControl
from server.releases.release_follower import ReleaseFollower
from server.releases.shadow_queue import ShadowQueue
from server.releases.traffic import Traffic
from server.releases.traffic_control import TrafficControl
from server.releases.triton_versions import TritonVersions
from server.select.filter_masks import FilterMasks
from server.select.filters import Sellable
from server.select.placement_rules import PlacementRules
from server.select.popularity import PopularItems
from server.services.catalog import CatalogService
from server.services.early_refusal import EarlyRefusal
from server.services.events import EventService
from server.services.placement import PlacementService
from server.services.recommendation import RecommendationService
from server.services.release import ReleaseService
from server.services.users import UserService
from server.settings import GatewaySettings
from server.shadows import Shadows
from server.shop import Shop

LOG = logging.getLogger(__name__)

SERVICES = tuple(
    file.DESCRIPTOR.services_by_name[name].full_name
    for file, name in (
        (recommendation_pb2, "RecommendationService"),
        (event_pb2, "EventService"),
        (catalog_pb2, "CatalogService"),
        (user_pb2, "UserService"),
        (placement_pb2, "PlacementService"),
        (release_pb2, "ReleaseService"),
    )
)
MAX_MESSAGE_BYTES = 8 * 1024 * 1024
MAX_UNSEEN_CALLS = 512
"""Calls that gRPC holds until the event loop takes them in. It drops more than that itself: a longer line is of calls
whose callers have given up by their turn."""


class AddressTaken(Exception):
    """The gateway cannot listen where it should; the message says what to do."""


class Gateway:
    """Made, started and stopped once, in one event loop."""

    def __init__(self, settings: Settings, own: GatewaySettings) -> None:
        """Opens the database.

        Raises:
            DatabaseError, SQLAlchemyError: it cannot be opened.
        """
        self._settings = settings
        self._own = own
        self._engine = open_database(settings.log_url)
        tombstones = Tombstones(settings)
        tombstones.check(self._engine)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="followers")
        self._limit = CallLimit(own.max_calls)
        self._admission = Admission(self._limit, target_s=own.target_delay_ms / 1000)
        self._triton = Triton(
            settings.triton_address, settings.model_repository, call_timeout_s=own.model_budget_ms / 1000
        )
        index = CatalogueIndex()
        breakers = Breakers()
        self._features = FeatureReader(settings, own.feature_budget_ms / 1000)
        self._catalogue = CatalogueFollower(self._engine, index, self._triton, self._threads)
        self._rules = PlacementRules(self._engine, index, self._threads)
        self._popular = PopularItems(self._engine, index, self._threads)
        self._election = Election(settings.home / "triton.lock")
        self._releases = ReleaseFollower(
            engine=self._engine,
            repository=settings.model_repository,
            index=index,
            catalogue=self._catalogue,
            features=self._features,
            versions=TritonVersions(self._triton, self._election, index),
            breakers=breakers,
            threads=self._threads,
        )
        self._canaries = Canaries(self._engine, self._election)
        self._traffic = Traffic(self._engine, self._releases, self._threads)
        self._recorder = AnswerRecorder(
            self._engine, tombstones, max_answers=own.max_queued_answers, retention_days=own.answer_retention_days
        )
        sellable = Sellable(index)
        self.shop = Shop(
            index=index,
            sellable=sellable,
            masks=FilterMasks(index, sellable),
            rules=self._rules,
            popular=self._popular,
            features=self._features,
            releases=self._releases,
            traffic=self._traffic,
            shadows=ShadowQueue(lambda: 2 * self._admission.under_way > self._admission.limit),
            model=Model(self._triton, breakers, budget_s=own.model_budget_ms / 1000),
            history=PurchaseHistory(self._engine, self._threads),
            shown=ShownHistory(self._engine, self._threads),
            recorder=self._recorder,
            feature_budget_s=own.feature_budget_ms / 1000,
            exploration_rate=own.exploration_rate,
        )
        write_budget_s = own.write_budget_ms / 1000
        self._events = EventWriter(self._engine, tombstones, max_events=own.max_queued_events, budget_s=write_budget_s)
        self._eraser = Eraser(settings)
        self._event_service = EventService(self._events, self._eraser, self._limit)
        self._records = ShopRecords(self._engine, tombstones, self._catalogue, self._rules, budget_s=write_budget_s)
        self._control = ReleaseControl(self._engine, settings.model_repository, self._releases, budget_s=write_budget_s)
        self._traffic_control = TrafficControl(self._engine, self._traffic, self._releases, budget_s=write_budget_s)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        recommends = recommendation_pb2.DESCRIPTOR.services_by_name["RecommendationService"].full_name
        self._server = grpc.aio.server(
            interceptors=[EarlyRefusal(recommends, self._admission)],
            options=[
                ("grpc.so_reuseport", int(own.share_port)),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.server.max_pending_requests", MAX_UNSEEN_CALLS // 2),  # from here on it drops some
                ("grpc.server.max_pending_requests_hard_limit", MAX_UNSEEN_CALLS),
            ],
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._end_metrics: Callable[[], None] = lambda: None
        self.port = 0

    async def start(self) -> None:
        """Listens, not yet serving; the health service says when.

        Raises:
            AddressTaken: somebody else listens there.
        """
        limit = self._limit
        services: tuple[tuple[Callable[..., None], object], ...] = (
            (
                recommendation_pb2_grpc.add_RecommendationServiceServicer_to_server,
                RecommendationService(self.shop, self._admission),
            ),
            (event_pb2_grpc.add_EventServiceServicer_to_server, self._event_service),
            (catalog_pb2_grpc.add_CatalogServiceServicer_to_server, CatalogService(self._records, limit)),
            (user_pb2_grpc.add_UserServiceServicer_to_server, UserService(self._records, limit)),
            (placement_pb2_grpc.add_PlacementServiceServicer_to_server, PlacementService(self._records, limit)),
            (
                release_pb2_grpc.add_ReleaseServiceServicer_to_server,
                ReleaseService(self._control, self._traffic_control, limit),
            ),
        )
        for add, service in services:
            add(service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection([*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        await self._say(health_pb2.HealthCheckResponse.NOT_SERVING)
        address = self._settings.gateway_address
        try:
            self.port = self._server.add_insecure_port(address)
            probed = self._server.add_insecure_port("127.0.0.1:0")  # where processes share a port, this one is its own
        except RuntimeError:
            raise AddressTaken(
                f"BRAID_GATEWAY_ADDRESS={address}: cannot listen there; stop what does, or choose another port"
            ) from None
        if self._own.metrics_address:
            self._end_metrics = self._begin_metrics()
        await self._server.start()
        LOG.info("listening on %s", address)
        for work in (
            self._catalogue.follow(),
            self._rules.follow(),
            self._popular.follow(),
            self._features.follow(),
            self._releases.follow(),
            self._traffic.follow(),
            self._canaries.follow(),
            Shadows(self.shop, self._engine, self._threads).follow(),
            self_probe.follow(probed, self._admission),
            self._announce(),
        ):
            self._begin(work)

    async def stop(self) -> None:
        """Health first, then the calls under way within the grace, then the parts."""
        LOG.info("draining for at most %g s", self._own.drain_s)
        await self._health.enter_graceful_shutdown()
        self._event_service.drain()
        await self._server.stop(self._own.drain_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._triton.close()
        for part in (
            self._events,
            self._records,
            self._control,
            self._traffic_control,
            self._canaries,
            self._recorder,
            self._features,
            self._eraser,
        ):
            await asyncio.get_running_loop().run_in_executor(None, part.close)
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._end_metrics()
        self._election.resign()
        self._engine.dispose()
        LOG.info("stopped")

    def _begin_metrics(self) -> Callable[[], None]:
        try:
            return serve_metrics(self._own.metrics_address)
        except OSError as error:
            raise AddressTaken(
                f"BRAID_GATEWAY_METRICS_ADDRESS={self._own.metrics_address}: cannot listen there ({error.strerror}); "
                "choose another port, one for each process"
            ) from None

    async def _announce(self) -> None:
        """SERVING once catalogue, rules and what is popular are here and the wanted release, if any, is warm."""
        await self._catalogue.loaded.wait()
        await self._rules.loaded.wait()
        await self._popular.loaded.wait()
        await self._features.opened.wait()
        await self._releases.settled.wait()
        await self._traffic.loaded.wait()
        gc.collect()
        gc.freeze()  # else each full collection walks all that Feast imported, and every call waits for 0.2 s
        await self._say(health_pb2.HealthCheckResponse.SERVING)
        LOG.info("serving")

    async def _say(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for service in ("", *SERVICES):
            await self._health.set(service, status)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        task.add_done_callback(_complain)
        self._tasks.append(task)


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        LOG.error("a background task ended: %r", error, exc_info=error)
