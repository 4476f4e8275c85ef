"""One gateway process: its parts put together, started in order, and ended without losing a call."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc
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
from server.access.exposure import check_exposure, is_loopback
from server.access.guard import Guard
from server.access.key_ring import KeyRing
from server.access.tls import TlsFiles
from server.catalogue.catalogue_follower import CatalogueFollower
from server.catalogue.catalogue_index import CatalogueIndex
from server.following import Counters
from server.freshness import Freshness
from server.health import Health
from server.hydrate.feature_reader import FeatureReader
from server.hydrate.history_reader import HistoryReader
from server.hydrate.purchase_history import PurchaseHistory
from server.hydrate.shown_history import ShownHistory
from server.infer.breaker import Breakers
from server.infer.model import Model
from server.infer.triton import Triton
from server.local_socket import LocalSocket
from server.metrics import CALLS_UNDER_WAY, LIVE_RELEASE, SERVING, serve_metrics
from server.overload.admission import Admission, CallLimit
from server.overload.connections import server_options
from server.overload.self_probe import SelfProbe
from server.record.answer_recorder import AnswerRecorder
from server.record.eraser import Eraser
from server.record.event_writer import EventWriter
from server.record.shop_records import ShopRecords
from server.releases.canaries import Canaries
from server.releases.election import Election
from server.releases.recorded_requests import RecordedRequests
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
from server.services.intake import Intake
from server.services.placement import PlacementService
from server.services.recommendation import RecommendationService
from server.services.release import ReleaseService
from server.services.unregistered import Unregistered
from server.services.users import UserService
from server.settings import GatewaySettings
from server.shadows import Shadows
from server.shop import Shop
from server.tracing import start_tracing

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


class AddressTaken(Exception):
    """The gateway cannot listen where it should; the message says what to do."""


class Gateway:
    """Made, started and stopped once, in one event loop."""

    def __init__(self, settings: Settings, own: GatewaySettings) -> None:
        """Opens the database.

        Raises:
            DatabaseError, SQLAlchemyError: it cannot be opened.
        """
        self._settings, self._own = settings, own
        self._engine = open_database(settings.log_url)
        tombstones = Tombstones(settings)
        tombstones.check(self._engine)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="followers")
        self._limit = CallLimit(own.max_calls)
        self._probe = probe = SelfProbe()
        target_s = own.target_delay_ms / 1000
        self._admission = Admission(
            self._limit, target_s=target_s, line_s=probe.line_s, switching=lambda: self._releases.switching
        )
        self._triton = Triton(
            settings.triton_address,
            settings.model_repository,
            call_timeout_s=own.model_budget_ms / 1000,
            under_way=self._recommending,
        )
        index, breakers = CatalogueIndex(), Breakers()
        self._features = FeatureReader(settings, own.feature_budget_ms / 1000, self._recommending)
        self._counters = counters = Counters(self._engine, self._threads)
        self._catalogue = CatalogueFollower(self._engine, index, self._triton, counters, self._threads)
        self._rules = PlacementRules(self._engine, index, counters, self._threads)
        self._popular = PopularItems(self._engine, index, self._threads)
        self._election = Election(settings.home / "triton.lock")
        self._releases = ReleaseFollower(
            engine=self._engine,
            repository=settings.model_repository,
            catalogue=self._catalogue,
            features=self._features,
            versions=TritonVersions(self._triton, self._election, index),
            recorded=RecordedRequests(self._engine, index, self._features, self._threads),
            breakers=breakers,
            threads=self._threads,
        )
        self._freshness = Freshness(self._engine, self._live_release, self._threads)
        LIVE_RELEASE.set_function(self._live_release)
        CALLS_UNDER_WAY.set_function(lambda: self._limit.under_way)
        self._canaries = Canaries(self._engine, self._election)
        self._traffic = Traffic(self._engine, self._releases, counters, self._threads)
        self._recorder = AnswerRecorder(
            self._engine, tombstones, max_answers=own.max_queued_answers, retention_days=own.answer_retention_days
        )
        self._histories, sellable = HistoryReader(budget_s=own.feature_budget_ms / 1000), Sellable(index)
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
            history=PurchaseHistory(self._engine, self._histories),
            shown=ShownHistory(self._engine, self._histories),
            recorder=self._recorder,
            exploration_rate=own.exploration_rate,
        )
        write_budget_s = own.write_budget_ms / 1000
        self._events = EventWriter(self._engine, tombstones, max_events=own.max_queued_events, budget_s=write_budget_s)
        self._eraser = Eraser(settings)
        self._event_service = EventService(self._events, self._eraser, self._limit)
        self._records = ShopRecords(self._engine, tombstones, self._catalogue, self._rules, budget_s=write_budget_s)
        self._control = ReleaseControl(self._engine, settings.model_repository, self._releases, budget_s=write_budget_s)
        self._traffic_control = TrafficControl(self._engine, self._traffic, self._releases, budget_s=write_budget_s)
        self._health = Health(SERVICES)
        unlocked = is_loopback(settings.gateway_address) or own.allow_anonymous or own.tls_client_ca is not None
        self._keys = KeyRing(self._engine, counters, self._threads, open_without_keys=unlocked)
        self._local = LocalSocket(own.local_socket)
        self._server = _new_server(own, self._keys, self._admission)
        self._tasks: list[asyncio.Task[None]] = []
        self._end_metrics: Callable[[], None] = lambda: None
        self._end_tracing: Callable[[], None] = lambda: None
        self.port = 0

    async def start(self) -> None:
        """Listens, not yet serving; the health service says when.

        Raises:
            AddressTaken: somebody else listens there.
            Exposed, TlsError: it would be open to others, or has no TLS with these files.
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
        server = Unregistered(self._server)
        for add, service in services:
            add(service, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection([*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        await self._keys.refresh()
        address = self._settings.gateway_address
        check_exposure(address, self._own, any_key=self._keys.any_key)
        tls = TlsFiles.of(self._own)
        try:
            if tls is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, tls.credentials())
        except RuntimeError:
            raise AddressTaken(
                f"BRAID_GATEWAY_ADDRESS={address}: cannot listen there; stop what does, or choose another port"
            ) from None
        try:
            self._server.add_insecure_port(self._local.target)
        except RuntimeError:
            raise AddressTaken(
                f"BRAID_GATEWAY_LOCAL_SOCKET={self._local.path}: cannot listen there; name a socket of at most 107 "
                "bytes in a folder that exists"
            ) from None
        if self._own.metrics_address:
            self._end_metrics = self._begin_metrics()
        if self._own.trace_address:
            self._end_tracing = start_tracing(self._own.trace_address, self._own.trace_rate)
        await self._server.start()
        protection = "TLS" if tls and not tls.client_ca else "mutual TLS" if tls else "no TLS"
        LOG.info("listening on %s: %s, %s", address, protection, "open to all" if self._keys.open else "API keys")
        for work in (
            self._counters.follow(),
            self._catalogue.follow(),
            self._rules.follow(),
            self._popular.follow(),
            self._features.follow(),
            self._releases.follow(),
            self._traffic.follow(),
            self._election.follow(),
            self._canaries.follow(),
            Shadows(self.shop, self._engine, self._threads).follow(),
            self._freshness.follow(),
            self._keys.follow(),
            self._probe.follow(self._local.target),
            self._admission.follow(),
            self._announce(),
        ):
            self._begin(work)

    async def stop(self) -> None:
        """Health first, while calls are still taken; then the calls under way within the grace, then the parts."""
        LOG.info("draining for at most %g s", self._own.notice_s + self._own.drain_s)
        self._health.drain()
        SERVING.set(0)
        await asyncio.sleep(self._own.notice_s)
        self._health.end()
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
            self._histories,
            self._eraser,
        ):
            await asyncio.get_running_loop().run_in_executor(None, part.close)
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._end_metrics()
        await asyncio.get_running_loop().run_in_executor(None, self._end_tracing)
        self._election.resign()
        self._engine.dispose()
        self._local.remove_folder()
        LOG.info("stopped")

    def forget_server(self) -> None:
        """After a start that failed: from Python 3.13 on, a server of gRPC's that ends with the process complains."""
        del self._server

    def _recommending(self) -> int:
        return self._admission.under_way

    def _live_release(self) -> int:
        return self._releases.current.number if self._releases.current else 0

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
        gc.set_threshold(10_000, 20, 20)  # a batch makes thousands of objects, hardly any of them in a circle
        self._health.serve()
        SERVING.set(1)
        LOG.info("serving")

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        task.add_done_callback(_complain)
        self._tasks.append(task)


def _new_server(own: GatewaySettings, keys: KeyRing, admission: Admission) -> grpc.aio.Server:
    """gRPC's server, with what a call passes before it reaches a service."""
    return grpc.aio.server(
        interceptors=[
            Guard(keys),
            EarlyRefusal(recommendation_pb2.DESCRIPTOR.services_by_name["RecommendationService"], admission),
            Intake(max_streams=own.max_streams, watch=f"/{health.SERVICE_NAME}/Watch"),
        ],
        options=server_options(own),
        maximum_concurrent_rpcs=own.max_calls + 2 * own.max_streams,
    )


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        LOG.error("a background task ended: %r", error, exc_info=error)
