"""Placement rules: what the shop's people decide about a placement, in the table `placement_rules`.

A counter in `counters` grows with every change, inside the writer's own transaction: a follower that finds it unchanged
has nothing to read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Any, Final, Literal

from sqlalchemy import Connection, Engine, delete, select

from features.database.counters import add_to_counter, changed_since
from features.database.engine import upsert
from features.database.models import PlacementRule
from features.schema import MAX_BOOSTS_AT_ONCE, MAX_RULES

Action = Literal["block", "pin", "boost"]
_COUNTER: Final = "placement_rules_revision"
FOREVER_MS: Final = 2**62


class TooManyRules(Exception):
    """The limits of a shop's rules would be passed; the message names the limit and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemSelector:
    """Items by what the catalogue says of them; the fields are those of `braid.v1.ItemSelector`."""

    categories: tuple[str, ...] = ()
    brands: tuple[str, ...] = ()
    min_price: float | None = None
    max_price: float | None = None
    item_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule; times are None where not set."""

    rule_id: str
    placement: str = ""
    """Empty: everywhere."""
    action: Action
    items: ItemSelector = field(default_factory=ItemSelector)
    """Of a pin, one item id."""
    position: int = 0
    """Of a pin, from 1 on."""
    amount: float = 0.0
    """Of a boost."""
    start_time_ms: int | None = None
    end_time_ms: int | None = None

    def holds(self, now_ms: int) -> bool:
        """Whether its time has come and is not over."""
        return self.begin_ms <= now_ms < self.end_ms

    @property
    def begin_ms(self) -> int:
        """`start_time_ms`, or a time before all."""
        return -FOREVER_MS if self.start_time_ms is None else self.start_time_ms

    @property
    def end_ms(self) -> int:
        """`end_time_ms`, or a time after all."""
        return FOREVER_MS if self.end_time_ms is None else self.end_time_ms


Rules = list[Rule]


class RuleTable:
    """Reads and changes the table; each method is one transaction."""

    counter: Final = _COUNTER
    """Of its changes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def upsert(self, rules: Sequence[Rule]) -> None:
        """Inserts rules or overwrites them, all or none.

        Raises:
            TooManyRules: the shop would have too many, or too many boosts would hold at once.
        """
        if not rules:
            return
        with self._engine.begin() as connection:
            add_to_counter(connection, _COUNTER, 1)  # who else writes waits here, so that the limits hold
            check_limits({rule.rule_id: rule for rule in (*_all(connection), *rules)}.values())
            upsert(connection, PlacementRule, [_row(rule) for rule in rules], key=["rule_id"])

    def delete(self, rule_ids: Sequence[str]) -> int:
        """Deletes rules; returns how many were there."""
        with self._engine.begin() as connection:
            add_to_counter(connection, _COUNTER, 1)
            return connection.execute(delete(PlacementRule).where(PlacementRule.rule_id.in_(rule_ids))).rowcount

    def list(self, after: str, limit: int, placement: str = "") -> Rules:
        """At most `limit` rules whose id is above `after`, by id; with `placement`, only those that name it."""
        statement = select(PlacementRule.__table__).where(PlacementRule.rule_id > after)
        if placement:
            statement = statement.where(PlacementRule.placement == placement)
        with self._engine.connect() as connection:
            return [_rule(row) for row in connection.execute(statement.order_by(PlacementRule.rule_id).limit(limit))]

    def changed_since(self, revision: int) -> tuple[Rules, int] | None:
        """All rules by id and their revision; None where that is `revision` still."""
        return changed_since(self._engine, _COUNTER, revision, self._rules)

    def _rules(self) -> Rules:
        with self._engine.connect() as connection:
            return _all(connection)


def check_limits(rules: Iterable[Rule]) -> None:
    """Compares a shop's rules with its limits.

    Raises:
        TooManyRules: there are too many, or too many boosts hold for one placement at a time.
    """
    rules = list(rules)
    if len(rules) > MAX_RULES:
        raise TooManyRules(f"the shop would have {len(rules)} rules, at most {MAX_RULES:,} are allowed; delete some")
    boosts = [rule for rule in rules if rule.action == "boost"]
    for placement in {rule.placement for rule in boosts}:
        here = [rule for rule in boosts if rule.placement in ("", placement)]
        changes = sorted([(rule.begin_ms, 1) for rule in here] + [(rule.end_ms, -1) for rule in here])  # ends first
        most = max(accumulate(change for _, change in changes))
        if most > MAX_BOOSTS_AT_ONCE:
            raise TooManyRules(
                f"{most} boosts would hold at once for placement {placement!r}, at most {MAX_BOOSTS_AT_ONCE} are "
                "allowed; end or delete some"
            )


def _all(connection: Connection) -> list[Rule]:
    return [_rule(row) for row in connection.execute(select(PlacementRule.__table__).order_by(PlacementRule.rule_id))]


def _row(rule: Rule) -> dict[str, Any]:
    chosen = {name: value for name, value in asdict(rule.items).items() if value not in (None, ())}
    return {name: getattr(rule, name) for name in _COLUMNS} | {"items": chosen}


def _rule(row: Any) -> Rule:
    values = dict(row._mapping)
    items: dict[str, Any] = values.pop("items")
    chosen: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in items.items()}
    return Rule(**values, items=ItemSelector(**chosen))


_COLUMNS: Final = tuple(column.name for column in PlacementRule.__table__.columns)
