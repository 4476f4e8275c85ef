"""Callers that go on whatever happens, and remember what they were told."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import grpc

from benchmarks.acknowledged import acknowledged_ids
from braid.v1 import event_pb2, event_pb2_grpc, recommendation_pb2_grpc
from braid.v1 import recommendation_pb2 as pb
from tests.server.shop import SHOPPERS

DEADLINE_S = 1.0
CHANNELS = 4
RETRY = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.02s",
                "maxBackoff": "0.2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            },
        }
    ]
}
"""A connection that broke is no failed call, and one that is told to come back comes back."""


class Storefront:
    """Asks at a steady rate, each time for another shopper, and writes an event with every fifth call.

    The events are of visitors who are not asked for: after fifty of them a shopper's long-term vector counts as stale.
    """

    def __init__(self, address: str, rate: float) -> None:
        self.codes: Counter[str] = Counter()
        """Of Recommend."""
        self.event_codes: Counter[str] = Counter()
        self.acknowledged: set[str] = set()
        """Ids of events that a gateway said it has stored."""
        self.tiers: Counter[str] = Counter()
        self.full_since_s = float("inf")
        """Since when every answer is in full; infinity while the newest is not."""
        self._rate = rate
        options = [
            ("grpc.service_config", json.dumps(RETRY)),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 200),
        ]
        self._channels = [grpc.insecure_channel(address, options) for _ in range(CHANNELS)]
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Storefront:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        for channel in self._channels:
            channel.close()

    def _run(self) -> None:
        recommend = [recommendation_pb2_grpc.RecommendationServiceStub(channel).Recommend for channel in self._channels]
        write = [event_pb2_grpc.EventServiceStub(channel).WriteEvents for channel in self._channels]
        with ThreadPoolExecutor(100) as calls:
            number = 0
            while not self._end.wait(1 / self._rate):
                calls.submit(self._ask, recommend[number % CHANNELS], f"user-{number % SHOPPERS}")
                if number % 5 == 0:
                    calls.submit(self._write, write[number // 5 % CHANNELS], f"visitor-{number}")
                number += 1

    def _ask(self, recommend: grpc.UnaryUnaryMultiCallable, user_id: str) -> None:  # type: ignore[type-arg]
        asked_s, code, tier = time.monotonic(), grpc.StatusCode.OK.name, ""
        try:
            answer = recommend(pb.RecommendRequest(user_id=user_id), timeout=DEADLINE_S)
            tier = pb.Tier.Name(answer.tier)
        except grpc.RpcError as error:
            code = error.code().name
        with self._lock:
            self.codes[code] += 1
            self.tiers[tier] += 1
            if tier != "TIER_FULL":
                self.full_since_s = float("inf")
            else:
                self.full_since_s = min(self.full_since_s, asked_s)

    def _write(self, write: grpc.UnaryUnaryMultiCallable, user_id: str) -> None:  # type: ignore[type-arg]
        kind = event_pb2.EVENT_TYPE_VIEW
        event = event_pb2.Event(event_id=uuid4().hex, type=kind, item_id="garden-01", user_id=user_id)
        event.event_time.GetCurrentTime()
        code = grpc.StatusCode.OK.name
        stored = []
        try:
            answer = write(event_pb2.WriteEventsRequest(events=[event]), timeout=5)
            stored = acknowledged_ids(answer)
        except grpc.RpcError as error:
            code = error.code().name
        with self._lock:
            self.event_codes[code] += 1
            self.acknowledged.update(stored)
