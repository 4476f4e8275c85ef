"""What gateways keep in the shop's database beside events, on PostgreSQL: rules and what was shown."""

from __future__ import annotations

from typing import Any

from braid.v1 import placement_pb2 as pb
from braid.v1 import recommendation_pb2 as rec
from features import store
from features.database.engine import open_database
from features.shop.catalogue import Catalogue
from tests.conditions import eventually
from tests.conftest import NewSettings
from tests.processes import free_ports
from tests.server.client import Client, gateway, ids
from tests.server.shop import items

TODAY = rec.Filter(exclude_shown_today=True)


def shown(client: Client, **fields: Any) -> list[str]:
    return ids(client.recommend("ann", placement="home", page_size=5, **fields).results)


def test_rules_and_shown_answers_reach_every_gateway(new_settings: NewSettings, postgres_url: str) -> None:
    settings = new_settings(database_url=postgres_url)
    store.apply(settings)
    engine = open_database(settings.log_url)
    Catalogue(engine).upsert(items())
    engine.dispose()
    beside = settings.model_copy(update={"gateway_address": f"127.0.0.1:{free_ports()}"})
    with gateway(settings) as one, gateway(beside) as another:
        first = shown(one.client)
        assert len(first) == 5 and not set(first) & set(shown(one.client, filter=TODAY))
        eventually(lambda: not set(first) & set(shown(another.client, filter=TODAY)), what="the record of the answer")
        block = pb.Rule.Block(items=pb.ItemSelector(item_ids=first[:2]))
        pin = pb.Rule.Pin(item_id=first[4], position=1)
        rules = [pb.Rule(rule_id="block", placement="home", block=block), pb.Rule(rule_id="pin", pin=pin)]
        one.client.placements.UpsertRules(pb.UpsertRulesRequest(rules=rules), timeout=10)
        changed = shown(one.client)
        assert changed[0] == first[4] and not set(first[:2]) & set(changed)
        eventually(lambda: shown(another.client) == changed, what="the rules in the other gateway")
        listed = another.client.placements.ListRules(pb.ListRulesRequest(), timeout=10).rules
        assert [rule.rule_id for rule in listed] == ["block", "pin"]
        deleted = another.client.placements.DeleteRules(pb.DeleteRulesRequest(rule_ids=["block", "pin"]), timeout=10)
        assert deleted.deleted_count == 2 and shown(another.client) == first
