"""What a storefront's backend does with Braid: the gRPC calls of the story, and titles for ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import grpc

from braid.v1 import catalog_pb2, event_pb2, recommendation_pb2, user_pb2
from braid.v1.catalog_pb2_grpc import CatalogServiceStub
from braid.v1.event_pb2_grpc import EventServiceStub
from braid.v1.recommendation_pb2_grpc import RecommendationServiceStub
from braid.v1.user_pb2_grpc import UserServiceStub
from server.direct import DIRECT

CALL_S = 10.0
"""Longest wait for one answer."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An item as a person reads it."""

    item_id: str
    title: str
    category: str = ""
    price: float | None = None
    path: tuple[str, ...] = field(default=(), repr=False)


class Storefront:
    """A connection to one gateway; close it, or use it in a `with` statement."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=[DIRECT])
        self._recommendation = RecommendationServiceStub(self._channel)
        self._events = EventServiceStub(self._channel)
        self._catalog = CatalogServiceStub(self._channel)
        self._users = UserServiceStub(self._channel)
        self._shown: dict[str, Shown] = {}

    def __enter__(self) -> Storefront:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def recommend(
        self, user_id: str, page_size: int = 8, *, explain: bool = False, new_only: bool = False
    ) -> recommendation_pb2.RecommendResponse:
        """Items for a user; with `new_only` none that they have bought."""
        request = recommendation_pb2.RecommendRequest(
            user_id=user_id,
            page_size=page_size,
            explain=explain,
            filter=recommendation_pb2.Filter(exclude_purchased=new_only),
        )
        answer: recommendation_pb2.RecommendResponse = self._recommendation.Recommend(request, timeout=CALL_S)
        return answer

    def interests(self, user_id: str) -> recommendation_pb2.GetInterestsResponse:
        """A user's interests by category."""
        request = recommendation_pb2.GetInterestsRequest(user_id=user_id)
        answer: recommendation_pb2.GetInterestsResponse = self._recommendation.GetInterests(request, timeout=CALL_S)
        return answer

    def ranked(self, user_id: str, item_ids: Sequence[str]) -> list[str]:
        """The given items, best for the user first."""
        request = recommendation_pb2.RankRequest(user_id=user_id, item_ids=item_ids)
        results = self._recommendation.Rank(request, timeout=CALL_S).results
        return [result.item_id for result in sorted(results, key=lambda result: -result.score)]

    def similar(self, item_id: str, page_size: int) -> list[str]:
        """Ids of the items nearest to one; empty where the model does not know it."""
        request = recommendation_pb2.SimilarItemsRequest(item_id=item_id, page_size=page_size)
        try:
            answer = self._recommendation.SimilarItems(request, timeout=CALL_S)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return []
            raise
        return [result.item_id for result in answer.results]

    def write(self, events: Sequence[event_pb2.Event]) -> list[event_pb2.EventStatus]:
        """Writes events; the answer comes when they are durable."""
        answer = self._events.WriteEvents(event_pb2.WriteEventsRequest(events=events), timeout=CALL_S)
        return list(answer.statuses)

    def user(self, user_id: str) -> user_pb2.User:
        """What the shop knows of a user; only the id where it knows nothing."""
        try:
            user: user_pb2.User = self._users.GetUser(user_pb2.GetUserRequest(user_id=user_id), timeout=CALL_S).user
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return user_pb2.User(user_id=user_id)
        return user

    def show(self, item_id: str) -> Shown:
        """An item with its title; the id stands for the title where the catalogue has none."""
        if item_id not in self._shown:
            try:
                item = self._catalog.GetItem(catalog_pb2.GetItemRequest(item_id=item_id), timeout=CALL_S).item
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
                item = catalog_pb2.Item(item_id=item_id)
            title = item.title.strip() or item_id
            self._shown[item_id] = Shown(
                item_id,
                title.capitalize() if title.isupper() else title,
                item.category_path[-1] if item.category_path else "",
                item.price if item.HasField("price") else None,
                tuple(item.category_path),
            )
        return self._shown[item_id]

    def show_all(self, item_ids: Iterable[str]) -> list[Shown]:
        """Items with their titles, in order."""
        return [self.show(item_id) for item_id in item_ids]
