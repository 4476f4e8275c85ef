"""The table `answers`: what was answered to whom and what the model saw.

The gateway writes it, `features.answers.answer_report` and `features.answers.skew` read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, delete, insert, select

from features.answers.answer_features import encode
from features.database.models import Answer
from features.erasure.tombstones import Tombstones, named_keys
from features.inputs.shopper import NO_CONTEXT, Context, ShopperEvent, ShopperQuery
from features.inputs.transform import Array
from features.schema import shopper_key

DELETED_AT_ONCE: Final = 1_000
LOOKED_THROUGH: Final = 256
"""Newest answers, among which are looked for those that a model gave."""

RANKED: Final = "ranked_item_ids"
"""The option that holds what `Rank` was asked to score."""
EXPLORED: Final = "explored_item_ids"
"""The option that names items of the page which stand there to be tried out, not by their rank."""


@dataclass(frozen=True, slots=True)
class Trial:
    """That an answer is part of an experiment, and the arm that the shopper fell into."""

    experiment: str
    stage: int
    """Of `traffic_changes`."""
    arm: int
    """The release that was to answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAnswer:
    """An answer on its way into the table."""

    attribution_token: str
    query: ShopperQuery
    placement: str
    options: Mapping[str, Any]
    """What else the request asked for, by the field's name in `braid.v1`; must be JSON."""
    release: int
    """0 where no model answered."""
    tier: int
    item_ids: Sequence[str]
    """As shown, first position first; empty where the caller arranges the page itself."""
    stored: bool
    """Whether the feature store was read."""
    inputs: Sequence[Array] | None
    """The arrays of `fusion_inputs.SHOPPER_INPUTS` that went to the model; None where none answered."""
    trial: Trial | None = None
    model_failed: bool = False
    """Whether the arm's model did not answer, and the live release or what is popular stood in."""
    latency_ms: float = 0.0

    @property
    def shopper(self) -> str:
        """Key of whom it is for."""
        return shopper_key(self.query.user_id, self.query.session_id)


@dataclass(frozen=True, slots=True)
class RecentRequest:
    """What somebody asked; `ranked_item_ids` is empty unless it was a `Rank`."""

    query: ShopperQuery
    ranked_item_ids: tuple[str, ...]


def answer_row(answer: NewAnswer) -> dict[str, Any]:
    """The row of the table."""
    query = answer.query
    context = {} if query.context == NO_CONTEXT else asdict(query.context)
    request = {
        "user_id": query.user_id,
        "session_id": query.session_id,
        "context": {name: value for name, value in context.items() if value not in (None, "", ())},
        "recent_events": [[e.event_id, e.item_id, int(e.event_type), e.time_ms] for e in query.recent_events],
        "stored": answer.stored,
    }
    return {
        "attribution_token": answer.attribution_token,
        "answered_time_ms": query.now_ms,
        "shopper": answer.shopper,
        "session_id": query.session_id or None,
        "placement": answer.placement,
        "release": answer.release,
        "tier": int(answer.tier),
        "item_ids": list(answer.item_ids),
        "request": {name: value for name, value in {**request, **answer.options}.items() if value not in ("", [], {})},
        "features": None if answer.inputs is None else encode(answer.inputs),
        "experiment": answer.trial.experiment if answer.trial else None,
        "stage": answer.trial.stage if answer.trial else None,
        "arm": answer.trial.arm if answer.trial else None,
        "model_failed": answer.model_failed if answer.trial else None,
        "latency_ms": answer.latency_ms if answer.trial else None,
    }


def shopper_query(request: Mapping[str, Any], answered_time_ms: int) -> ShopperQuery:
    """For whom and when an answer was made, from its columns."""
    context = dict(request.get("context", {}))
    context["page_category"] = tuple(context.get("page_category", ()))
    return ShopperQuery(
        user_id=request.get("user_id", ""),
        session_id=request.get("session_id", ""),
        now_ms=answered_time_ms,
        context=Context(**context),
        recent_events=tuple(ShopperEvent(*event) for event in request.get("recent_events", ())),
    )


def recent_requests(engine: Engine, limit: int) -> list[RecentRequest]:
    """The newest requests that a model answered, newest first; at most `limit` of the last `LOOKED_THROUGH`.

    Raises:
        SQLAlchemyError: the database does not answer.
    """
    newest = select(Answer.request, Answer.answered_time_ms, Answer.release)
    newest = newest.order_by(Answer.answered_time_ms.desc()).limit(LOOKED_THROUGH)
    with engine.connect() as connection:
        rows = connection.execute(newest).fetchall()
    asked = [(request, time_ms) for request, time_ms, release in rows if release][:limit]
    return [RecentRequest(shopper_query(request, at_ms), tuple(request.get(RANKED, ()))) for request, at_ms in asked]


def append_answers(connection: Connection, tombstones: Tombstones, rows: Sequence[Mapping[str, Any]]) -> None:
    """Inserts rows of `answer_row`, without those of anybody who was erased meanwhile; the caller commits.

    Raises:
        ErasureKeyError: persons were erased under another key.
    """
    named = [named_keys(row["shopper"], row["session_id"]) for row in rows]
    refused = tombstones.refused(connection, set().union(*named))
    if kept := [row for row, keys in zip(rows, named, strict=True) if keys.isdisjoint(refused)]:
        connection.execute(insert(Answer), kept)


def delete_answers_before(connection: Connection, time_ms: int) -> int:
    """Deletes the oldest `DELETED_AT_ONCE` answers from before a time; returns how many. The caller commits."""
    old = select(Answer.attribution_token).where(Answer.answered_time_ms < time_ms)
    old = old.order_by(Answer.answered_time_ms).limit(DELETED_AT_ONCE)
    return connection.execute(delete(Answer).where(Answer.attribution_token.in_(old))).rowcount
