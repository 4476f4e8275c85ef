"""PlacementService: rules checked and read, pages written."""

from __future__ import annotations

from braid.v1 import placement_pb2 as pb
from braid.v1 import placement_pb2_grpc
from features.schema import (
    MAX_BATCH_RULES,
    MAX_BOOST,
    MAX_EXCLUDED_ITEMS,
    MAX_FILTER_VALUES,
    MAX_NAME_CHARS,
    MAX_PAGE_SIZE,
    MAX_RULES,
    MAX_TEXT_CHARS,
)
from features.shop.placement_rules import ItemSelector, Rule
from server.deadline import Deadline
from server.record.shop_records import ShopRecords
from server.services.calls import Limit, answers
from server.services.fields import Fields
from server.services.page_tokens import page_token, read_page_token
from server.services.shopper_fields import page_size, price_range
from server.services.timestamps import timestamp

DEFAULT_LIST_SIZE = 100


class PlacementService(placement_pb2_grpc.PlacementServiceServicer):
    """What a shop's people decide about a placement."""

    def __init__(self, records: ShopRecords, limit: Limit) -> None:
        self._records = records
        self.limit = limit

    @answers
    async def UpsertRules(self, request: pb.UpsertRulesRequest, deadline: Deadline) -> pb.UpsertRulesResponse:
        """All rules or none."""
        fields = Fields()
        rules: list[Rule] = []
        if fields.count("rules", request.rules, MAX_BATCH_RULES, 1):
            rules = [_rule(fields.within(f"rules[{number}]"), rule) for number, rule in enumerate(request.rules)]
            fields.once("rules", "rule_id", (rule.rule_id for rule in request.rules))
        fields.done()
        await self._records.upsert_rules(rules, deadline)
        return pb.UpsertRulesResponse(upserted_count=len(rules))

    @answers
    async def ListRules(self, request: pb.ListRulesRequest, deadline: Deadline) -> pb.ListRulesResponse:
        """A page of the rules."""
        fields = Fields()
        size = page_size(fields, request.page_size, DEFAULT_LIST_SIZE, MAX_RULES)
        after = read_page_token(fields, request.page_token, "ListRules")
        placement = fields.text("placement", request.placement, MAX_NAME_CHARS)
        fields.done()
        rules = await self._records.rules(after, size + 1, placement, deadline)
        token = page_token(rules[size - 1].rule_id) if len(rules) > size else ""
        return pb.ListRulesResponse(rules=[_message(rule) for rule in rules[:size]], next_page_token=token)

    @answers
    async def DeleteRules(self, request: pb.DeleteRulesRequest, deadline: Deadline) -> pb.DeleteRulesResponse:
        """Takes rules away."""
        fields = Fields()
        if fields.count("rule_ids", request.rule_ids, MAX_RULES, 1):
            fields.texts("rule_ids", request.rule_ids, MAX_RULES)
        fields.done()
        rule_ids = list(dict.fromkeys(request.rule_ids))
        return pb.DeleteRulesResponse(deleted_count=await self._records.delete_rules(rule_ids, deadline))


def _rule(fields: Fields, rule: pb.Rule) -> Rule:
    rule_id = fields.text("rule_id", rule.rule_id, required=True)
    placement = fields.text("placement", rule.placement, MAX_NAME_CHARS)
    start_ms = fields.time_ms("start_time", rule.start_time) if rule.HasField("start_time") else None
    end_ms = fields.time_ms("end_time", rule.end_time) if rule.HasField("end_time") else None
    if start_ms is not None and end_ms is not None and start_ms >= end_ms:
        fields.refuse("end_time", "is not after start_time")
    items, position, amount = ItemSelector(), 0, 0.0
    action = rule.WhichOneof("action")
    if action is None:
        fields.refuse("action", "is missing; set one of block, pin and boost")
        return Rule(rule_id=rule_id, action="block")
    inside = fields.within(action)
    if action == "pin":
        items = ItemSelector(item_ids=(inside.text("item_id", rule.pin.item_id, required=True),))
        position = inside.number("position", rule.pin.position, 1, MAX_PAGE_SIZE)
    elif action == "boost":
        items = _selector(inside, rule.boost.items)
        amount = inside.number("amount", rule.boost.amount, -MAX_BOOST, MAX_BOOST)
        if amount == 0:
            inside.refuse("amount", "is 0; give what is added to the scores, or leave the rule out")
    else:
        items = _selector(inside, rule.block.items)
    return Rule(
        rule_id=rule_id,
        placement=placement,
        action=action,
        items=items,
        position=position,
        amount=amount,
        start_time_ms=start_ms,
        end_time_ms=end_ms,
    )


def _selector(outside: Fields, message: pb.ItemSelector) -> ItemSelector:
    fields = outside.within("items")
    least, most = price_range(fields, message)
    selector = ItemSelector(
        categories=fields.texts("categories", message.categories, MAX_FILTER_VALUES, MAX_TEXT_CHARS),
        brands=fields.texts("brands", message.brands, MAX_FILTER_VALUES),
        min_price=least,
        max_price=most,
        item_ids=fields.texts("item_ids", message.item_ids, MAX_EXCLUDED_ITEMS),
    )
    if selector == ItemSelector():
        outside.refuse("items", "names no items; set at least one of its fields")
    return selector


def _message(rule: Rule) -> pb.Rule:
    message = pb.Rule(
        rule_id=rule.rule_id,
        placement=rule.placement,
        start_time=timestamp(rule.start_time_ms),
        end_time=timestamp(rule.end_time_ms),
    )
    items = pb.ItemSelector(
        categories=rule.items.categories,
        brands=rule.items.brands,
        min_price=rule.items.min_price,
        max_price=rule.items.max_price,
        item_ids=rule.items.item_ids,
    )
    if rule.action == "pin":
        message.pin.CopyFrom(pb.Rule.Pin(item_id=rule.items.item_ids[0], position=rule.position))
    elif rule.action == "boost":
        message.boost.CopyFrom(pb.Rule.Boost(items=items, amount=rule.amount))
    else:
        message.block.CopyFrom(pb.Rule.Block(items=items))
    return message
