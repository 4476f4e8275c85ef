"""PlacementService: what is taken and refused, and how its rules change the answers of every tier."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from braid.v1 import event_pb2
from braid.v1 import placement_pb2 as pb
from braid.v1 import recommendation_pb2 as rec
from tests.conditions import eventually
from tests.server.client import Client, assert_refused, ids, in_seconds, letters, new_event
from tests.server.shop import items

CATALOGUE = {item.item_id: item for item in items()}
SHOPPERS = ["user-4", "nobody-in-particular"]
"""One is answered by the model, one by what is popular."""


def selector(**fields: Any) -> pb.ItemSelector:
    return pb.ItemSelector(**fields)


def block(rule_id: str, placement: str, **fields: Any) -> pb.Rule:
    return pb.Rule(rule_id=rule_id, placement=placement, block=pb.Rule.Block(items=selector(**fields)))


def pin(rule_id: str, placement: str, item_id: str, position: int) -> pb.Rule:
    return pb.Rule(rule_id=rule_id, placement=placement, pin=pb.Rule.Pin(item_id=item_id, position=position))


def boost(rule_id: str, placement: str, amount: float, **fields: Any) -> pb.Rule:
    return pb.Rule(rule_id=rule_id, placement=placement, boost=pb.Rule.Boost(items=selector(**fields), amount=amount))


def put(client: Client, *rules: pb.Rule) -> None:
    client.placements.UpsertRules(pb.UpsertRulesRequest(rules=rules), timeout=10)


def listed(client: Client, **fields: Any) -> list[pb.Rule]:
    return list(client.placements.ListRules(pb.ListRulesRequest(**fields), timeout=10).rules)


def delete(client: Client, *rule_ids: str) -> int:
    return client.placements.DeleteRules(pb.DeleteRulesRequest(rule_ids=rule_ids), timeout=10).deleted_count


@pytest.fixture
def placement(client: Client) -> Iterator[str]:
    """A placement of the test's own, whose rules are gone afterwards."""
    name = f"place-{uuid4().hex}"
    yield name
    if left := [rule.rule_id for rule in listed(client, placement=name)]:
        delete(client, *left)


AT_THE_LIMITS = [
    pb.Rule(
        rule_id=letters(128),
        placement=letters(64),
        block=pb.Rule.Block(
            items=selector(
                categories=[letters(1000)] * 100,
                brands=[letters(128)] * 100,
                min_price=0,
                max_price=0,
                item_ids=[letters(128)] * 1000,
            )
        ),
        start_time=Timestamp(seconds=-62_135_596_800),
        end_time=Timestamp(seconds=253_402_300_799),
    ),
    pin("pin", "somewhere", "an item that nobody has", 100),
    boost("boost", "somewhere", -10, brands=["none"]),
]

REFUSED = [
    (block("", "", item_ids=["a"]), "rule_id"),
    (block(letters(129), "", item_ids=["a"]), "rule_id"),
    (block("r", letters(65), item_ids=["a"]), "placement"),
    (pb.Rule(rule_id="r"), "action"),
    (block("r", ""), "block.items"),
    (block("r", "", item_ids=["a"] * 1001), "block.items.item_ids"),
    (block("r", "", item_ids=[""]), "block.items.item_ids[0]"),
    (block("r", "", categories=["a"] * 101), "block.items.categories"),
    (block("r", "", brands=["a", letters(129)]), "block.items.brands[1]"),
    (block("r", "", min_price=-1), "block.items.min_price"),
    (block("r", "", min_price=2, max_price=1), "block.items.min_price"),
    (boost("r", "", 0, item_ids=["a"]), "boost.amount"),
    (boost("r", "", 10.01, item_ids=["a"]), "boost.amount"),
    (boost("r", "", float("nan"), item_ids=["a"]), "boost.amount"),
    (boost("r", "", 1), "boost.items"),
    (pin("r", "", "", 1), "pin.item_id"),
    (pin("r", "", "a", 0), "pin.position"),
    (pin("r", "", "a", 101), "pin.position"),
    (pb.Rule(rule_id="r", start_time=Timestamp(seconds=2), end_time=Timestamp(seconds=2)), "end_time"),
    (pb.Rule(rule_id="r", start_time=Timestamp(nanos=-1)), "start_time"),
]


@pytest.mark.parametrize("rule", AT_THE_LIMITS)
def test_a_rule_at_the_limits_comes_back_as_it_was_sent(empty_client: Client, rule: pb.Rule) -> None:
    put(empty_client, rule)
    assert listed(empty_client, placement=rule.placement) == [rule]
    assert delete(empty_client, rule.rule_id, "none") == 1
    assert listed(empty_client) == []


@pytest.mark.parametrize(("rule", "field"), REFUSED)
def test_a_bad_rule_refuses_the_request(empty_client: Client, rule: pb.Rule, field: str) -> None:
    request = pb.UpsertRulesRequest(rules=[pin("good", "", "a", 1), rule])
    assert_refused(lambda: empty_client.placements.UpsertRules(request), f"rules[1].{field}")
    assert listed(empty_client) == []


def test_requests_refuse_other_sizes_and_duplicates(empty_client: Client) -> None:
    service = empty_client.placements
    many = [pin(f"{number}", "", "a", 1) for number in range(101)]
    assert_refused(lambda: service.UpsertRules(pb.UpsertRulesRequest()), "rules")
    assert_refused(lambda: service.UpsertRules(pb.UpsertRulesRequest(rules=many)), "rules")
    twice = pb.UpsertRulesRequest(rules=[many[0], many[0]])
    assert_refused(lambda: service.UpsertRules(twice), "rules[1].rule_id")
    assert_refused(lambda: service.DeleteRules(pb.DeleteRulesRequest()), "rule_ids")
    assert_refused(lambda: service.DeleteRules(pb.DeleteRulesRequest(rule_ids=[""])), "rule_ids[0]")
    assert_refused(lambda: service.ListRules(pb.ListRulesRequest(page_size=1001)), "page_size")
    assert_refused(lambda: service.ListRules(pb.ListRulesRequest(page_token="?!")), "page_token")
    assert_refused(lambda: service.ListRules(pb.ListRulesRequest(placement=letters(65))), "placement")


def test_a_shop_has_a_thousand_rules_and_no_more(empty_client: Client) -> None:
    rules = [pin(f"rule-{number:04}", "full", "a", 1) for number in range(1001)]
    for start in range(0, 1000, 100):
        put(empty_client, *rules[start : start + 100])
    assert_refused(lambda: put(empty_client, rules[1000]), "rules")
    put(empty_client, rules[0])  # to overwrite is no more
    found, token = [], ""
    while True:
        page = empty_client.placements.ListRules(pb.ListRulesRequest(page_size=300, page_token=token))
        found += [rule.rule_id for rule in page.rules]
        token = page.next_page_token
        if not token:
            break
    assert found == [rule.rule_id for rule in rules[:1000]]
    assert delete(empty_client, *found) == 1000


def test_four_boosts_hold_at_once_and_no_more(empty_client: Client) -> None:
    everywhere = [boost(f"all-{number}", "", 1, brands=["a"]) for number in range(2)]
    here = [boost(f"here-{number}", "here", 1, brands=["a"]) for number in range(3)]
    put(empty_client, *everywhere, *here[:2])
    put(empty_client, boost("there", "there", 1, brands=["a"]))
    assert_refused(lambda: put(empty_client, here[2]), "rules")
    here[1].end_time.CopyFrom(in_seconds(100))
    here[2].start_time.CopyFrom(in_seconds(200))
    put(empty_client, here[1], here[2])
    here[2].start_time.CopyFrom(in_seconds(50))
    assert_refused(lambda: put(empty_client, here[2]), "rules")
    delete(empty_client, *(rule.rule_id for rule in listed(empty_client)))


@pytest.mark.parametrize("user_id", SHOPPERS)
def test_a_block_holds_from_the_next_answer_on_and_is_counted(client: Client, placement: str, user_id: str) -> None:
    rule_id = uuid4().hex
    put(client, block(rule_id, placement, categories=["Music"], max_price=10.0))
    answer = client.recommend(user_id, placement=placement, page_size=100)
    gone = {item_id for item_id, it in CATALOGUE.items() if it.category_path[0] == "Music" and (it.price or 0) <= 10}
    assert gone and not gone & set(ids(answer.results))
    assert {c.field: c.removed_count for c in answer.filter_counts}[f"rules/{rule_id}"] == len(gone)
    assert gone & set(ids(client.recommend(user_id, placement="elsewhere", page_size=100).results))
    assert delete(client, rule_id) == 1
    assert gone & set(ids(client.recommend(user_id, placement=placement, page_size=100).results))


@pytest.mark.parametrize("user_id", SHOPPERS)
def test_pins_have_their_places_where_the_filter_allows_them(client: Client, placement: str, user_id: str) -> None:
    plain = ids(client.recommend(user_id, placement=placement, page_size=30).results)
    wanted = {1: plain[9], 4: plain[7], 5: "kitchen-11"}  # the last is age-restricted
    put(client, *(pin(f"{placement}-{at}", placement, item_id, at) for at, item_id in wanted.items()))
    answer = client.recommend(user_id, placement=placement, explain=True)
    own = [item_id for item_id in plain if item_id not in wanted.values()]
    assert ids(answer.results) == [plain[9], *own[:2], plain[7], *own[2:8]]
    assert [at for at, result in enumerate(answer.results, 1) if result.pinned] == [1, 4]
    assert [at for at, result in enumerate(answer.results, 1) if not result.HasField("reason")] == [1, 4]
    grown_up = client.recommend(user_id, placement=placement, filter=rec.Filter(allow_age_restricted=True))
    assert ids(grown_up.results)[4] == "kitchen-11"
    without = client.recommend(user_id, placement=placement, filter=rec.Filter(exclude_item_ids=[plain[9]]))
    assert plain[9] not in ids(without.results) and len(without.results) == 10
    alone = rec.Filter(keep_categories=[CATALOGUE[plain[7]].category_path[0]])
    kept = client.recommend(user_id, placement=placement, filter=alone, page_size=100)
    assert ids(kept.results)[3] == plain[7] or CATALOGUE[plain[9]].category_path == CATALOGUE[plain[7]].category_path


@pytest.mark.parametrize("user_id", SHOPPERS)
def test_boosts_lift_and_bury_exactly(client: Client, placement: str, user_id: str) -> None:
    plain = client.recommend(user_id, placement=placement, page_size=100)
    scores = {result.item_id: result.score for result in plain.results}
    put(
        client,
        boost(f"{placement}-up", placement, 0.31, categories=["Garden"]),
        boost(f"{placement}-down", placement, -0.17, brands=["Garden brand 1", "Music brand 2"]),
    )
    for item_id, known in CATALOGUE.items():
        if item_id in scores:
            scores[item_id] += 0.31 if known.category_path[0] == "Garden" else 0.0
            scores[item_id] -= 0.17 if known.brand in ("Garden brand 1", "Music brand 2") else 0.0
    answer = client.recommend(user_id, placement=placement, page_size=100)
    assert set(ids(answer.results)) == set(scores)
    found = [result.score for result in answer.results]
    assert found == sorted(found, reverse=True)
    assert found == pytest.approx([scores[item_id] for item_id in ids(answer.results)], abs=2e-3)
    assert answer.tier == plain.tier
    buried = client.recommend(user_id, placement=placement, page_size=5, filter=rec.Filter(keep_categories=["Garden"]))
    assert {CATALOGUE[item_id].category_path[0] for item_id in ids(buried.results)} == {"Garden"}


def test_a_strong_boost_comes_first_for_everybody(client: Client, placement: str) -> None:
    put(client, boost(f"{placement}-up", placement, 10, item_ids=["music-05", "kitchen-05"]))
    for user_id in SHOPPERS:
        answer = client.recommend(user_id, placement=placement, diversity=0)
        assert set(ids(answer.results)[:2]) == {"music-05", "kitchen-05"}


def test_a_rule_holds_from_its_start_to_its_end(client: Client, placement: str) -> None:
    def first() -> str:
        return ids(client.recommend("user-4", placement=placement).results)[0]

    rule, own = pin(f"{placement}-later", placement, "kitchen-19", 1), first()
    begin_ms = time.time_ns() // 1_000_000 + 600
    rule.start_time.FromMilliseconds(begin_ms)
    rule.end_time.FromMilliseconds(begin_ms + 900)
    put(client, rule)
    assert own != "kitchen-19" and first() == own
    eventually(lambda: first() == "kitchen-19", within_s=5, what="the rule's start")
    assert time.time_ns() // 1_000_000 >= begin_ms
    eventually(lambda: first() == own, within_s=5, what="the rule's end")


def test_another_process_follows_within_half_a_second(client: Client, second_client: Client) -> None:
    for change in range(3):
        rule_id, placement = uuid4().hex, f"beside-{change}"
        put(client, pin(rule_id, placement, "music-09", 1))
        eventually(
            lambda where=placement: ids(second_client.recommend("user-4", placement=where).results)[0] == "music-09",
            within_s=0.5,
            what="the rule in the other process",
        )
        delete(client, rule_id)


def test_events_sent_along_and_explanations_stay_the_models_own(client: Client, placement: str) -> None:
    visit = [new_event(event_pb2.EVENT_TYPE_VIEW, f"garden-{number:02}") for number in range(8)]
    plain = client.recommend("user-1", recent_events=visit, explain=True, page_size=20)
    put(client, boost(f"{placement}-all", placement, 3, categories=["Garden", "Kitchen", "Music"]))
    lifted = client.recommend("user-1", placement=placement, recent_events=visit, explain=True, page_size=20)
    # in the same order, but for two that score alike: they may change places as events age
    scores = {it.item_id: it.score for it in plain.results}
    assert {it.item_id: it.score - 3 for it in lifted.results} == pytest.approx(scores, abs=0.01)
    assert {it.item_id: it.reason for it in lifted.results} == {it.item_id: it.reason for it in plain.results}
