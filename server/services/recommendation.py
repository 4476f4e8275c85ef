"""RecommendationService: requests checked and read, answers written."""

from __future__ import annotations

from collections.abc import Sequence

from braid.v1 import recommendation_pb2 as pb
from braid.v1 import recommendation_pb2_grpc
from features.schema import MAX_CANDIDATES, MAX_NAME_CHARS, SEQUENCE_TYPES, EventType
from features.shop.catalogue import CatalogueItem
from server.deadline import Deadline
from server.interests import changes, interests_of
from server.queries import Change, Interest, RankQuery, Recommendation, RecommendQuery
from server.rank import rank
from server.recommend import recommend
from server.services.calls import Limit, answers
from server.services.catalog import catalogue_item
from server.services.fields import Fields
from server.services.shopper_fields import caps, item_filter, now_ms, page_size, shopper_query
from server.services.timestamps import timestamp
from server.shop import Shop
from server.similar import similar_items
from server.stages import DECODE, ENCODE, Stage

MAX_CONTENT_ITEMS = 64
_RANKED_TYPES = frozenset(int(kind) for kind in SEQUENCE_TYPES)


class RecommendationService(recommendation_pb2_grpc.RecommendationServiceServicer):
    """Ranked items for a shopper."""

    def __init__(self, shop: Shop, limit: Limit) -> None:
        self._shop = shop
        self.limit = limit

    @answers
    async def Recommend(self, request: pb.RecommendRequest, deadline: Deadline) -> pb.RecommendResponse:
        """Items for a user or an anonymous session."""
        with Stage(DECODE):
            fields = Fields()
            query = RecommendQuery(
                shopper=shopper_query(
                    fields, request.user_id, request.session_id, request.recent_events, _context(request)
                ),
                placement=fields.text("placement", request.placement, MAX_NAME_CHARS),
                page_size=page_size(fields, request.page_size),
                filter=item_filter(fields, request),
                diversity=fields.number("diversity", request.diversity, 0.0, 1.0),
                caps=caps(fields, request),
                explain=request.explain,
            )
            fields.done()
        if request.validate_only:
            return pb.RecommendResponse()
        answer = await recommend(self._shop, query, deadline)
        with Stage(ENCODE):
            return _response(answer)

    @answers
    async def Rank(self, request: pb.RankRequest, deadline: Deadline) -> pb.RankResponse:
        """Scores for the given items."""
        fields = Fields()
        asked = shopper_query(fields, request.user_id, request.session_id, request.recent_events, _context(request))
        items: list[CatalogueItem] = []
        if fields.count("items", request.items, MAX_CONTENT_ITEMS):
            items = [catalogue_item(fields.within(f"items[{at}]"), item) for at, item in enumerate(request.items)]
            fields.once("items", "item_id", (item.item_id for item in items))
        in_all = len(request.item_ids) + len(request.items)
        if 1 <= in_all <= MAX_CANDIDATES:
            fields.texts("item_ids", request.item_ids, MAX_CANDIDATES)
        else:
            fields.refuse("item_ids", f"and items have {in_all} entries in all, 1 to {MAX_CANDIDATES:,} are allowed")
        if request.event_type and request.event_type not in _RANKED_TYPES:
            fields.refuse("event_type", f"is {request.event_type}; VIEW, CART, FAVOURITE, PURCHASE, CLICK are allowed")
        fields.done()
        query = RankQuery(
            shopper=asked,
            item_ids=tuple(request.item_ids),
            items=tuple(items),
            event_type=EventType(request.event_type or EventType.PURCHASE),
        )
        answer = await rank(self._shop, query, deadline)
        item_ids = [*query.item_ids, *(item.item_id for item in items)]
        chances: Sequence[float | None] = answer.probabilities or [None] * len(item_ids)
        return pb.RankResponse(
            results=[
                pb.RankResponse.Result(item_id=item_id, score=score, unknown=unknown, probability=chance)
                for item_id, score, unknown, chance in zip(
                    item_ids, answer.scores, answer.unknown, chances, strict=True
                )
            ],
            release=answer.release,
            tier=f"TIER_{answer.tier.name}",
            attribution_token=answer.attribution_token,
            long_term_stale=answer.long_term_stale,
        )

    @answers
    async def SimilarItems(self, request: pb.SimilarItemsRequest, deadline: Deadline) -> pb.SimilarItemsResponse:
        """Items nearest to one item."""
        fields = Fields()
        fields.text("item_id", request.item_id, required=True)
        size = page_size(fields, request.page_size)
        kept = item_filter(fields, request)
        if kept.exclude_purchased:
            fields.refuse("filter.exclude_purchased", "is not allowed here: SimilarItems knows no shopper")
        if kept.exclude_shown_today:
            fields.refuse("filter.exclude_shown_today", "is not allowed here: SimilarItems knows no shopper")
        fields.done()
        answer = similar_items(self._shop, request.item_id, size, kept, now_ms())
        return pb.SimilarItemsResponse(
            results=[
                pb.SimilarItemsResponse.Result(item_id=item_id, similarity=similarity)
                for item_id, similarity in zip(answer.item_ids, answer.similarities, strict=True)
            ],
            release=answer.release,
        )

    @answers
    async def GetInterests(self, request: pb.GetInterestsRequest, deadline: Deadline) -> pb.GetInterestsResponse:
        """What the shopper likes, long-term and now."""
        fields = Fields()
        query = shopper_query(fields, request.user_id, request.session_id, request.recent_events)
        fields.done()
        answer = await interests_of(self._shop, query, deadline)
        rising, fading = changes(answer.long_term, answer.current)
        return pb.GetInterestsResponse(
            long_term=_interests(answer.long_term),
            current=_interests(answer.current),
            long_term_weight=answer.long_term_weight,
            last_event_time=timestamp(answer.last_event_ms),
            release=answer.release,
            tier=f"TIER_{answer.tier.name}",
            long_term_stale=answer.long_term_stale,
            rising=_changes(rising),
            fading=_changes(fading),
            return_probability=answer.return_probability,
        )


def _context(request: pb.RecommendRequest | pb.RankRequest) -> pb.Context | None:
    return request.context if request.HasField("context") else None


def _response(answer: Recommendation) -> pb.RecommendResponse:
    response = pb.RecommendResponse(
        attribution_token=answer.attribution_token,
        release=answer.release,
        tier=f"TIER_{answer.tier.name}",
        long_term_weight=answer.long_term_weight,
        last_event_time=timestamp(answer.last_event_ms),
        long_term_encoded_through_time=timestamp(answer.encoded_through_ms),
        filter_counts=[
            pb.RecommendResponse.FilterCount(field=field, removed_count=count) for field, count in answer.filter_counts
        ],
        long_term_stale=answer.long_term_stale,
    )
    results = zip(answer.item_ids, answer.scores, answer.pinned, answer.reasons, strict=True)
    for place, (item_id, score, pinned, reason) in enumerate(results):
        result = response.results.add(item_id=item_id, score=score, pinned=pinned, explored=place == answer.explored)
        if reason is not None:
            result.reason.CopyFrom(
                pb.RecommendResponse.Reason(strand=f"STRAND_{reason.strand.name}", because_item_ids=reason.because)
            )
    return response


def _changes(changes: Sequence[Change]) -> list[pb.GetInterestsResponse.Change]:
    return [
        pb.GetInterestsResponse.Change(category_path=path, long_term_strength=before, current_strength=now)
        for path, before, now in changes
    ]


def _interests(interests: Sequence[Interest]) -> list[pb.GetInterestsResponse.Interest]:
    return [pb.GetInterestsResponse.Interest(category_path=path, strength=strength) for path, strength in interests]
