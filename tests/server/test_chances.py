"""Chances on a real release: of an event with an item, of coming back; and items that only their content tells of."""

from __future__ import annotations

from uuid import uuid4

import numpy as np
import pytest

from braid.v1 import catalog_pb2, event_pb2
from braid.v1 import recommendation_pb2 as rec
from tests.server.client import Client, ids, new_event
from tests.server.shop import TASTES, item, items, taste_of
from tests.server.test_questions import interests, rank, share, views

EVERYTHING = [known.item_id for known in items()]
VIEW, CART, PURCHASE = event_pb2.EVENT_TYPE_VIEW, event_pb2.EVENT_TYPE_CART, event_pb2.EVENT_TYPE_PURCHASE


def chances(answer: rec.RankResponse) -> np.ndarray:
    assert all(result.HasField("probability") for result in answer.results)
    return np.array([result.probability for result in answer.results])


def test_a_purchase_is_what_is_asked_for_unless_another_event_is_named(client: Client) -> None:
    said = {
        kind: chances(rank(client, "user-2", EVERYTHING, event_type=kind))
        for kind in (event_pb2.EVENT_TYPE_UNSPECIFIED, PURCHASE, VIEW)
    }
    assert said[PURCHASE] == pytest.approx(said[event_pb2.EVENT_TYPE_UNSPECIFIED], rel=0.01)
    assert ((said[PURCHASE] > 0) & (said[PURCHASE] < 1)).all()
    assert np.abs(said[VIEW] / said[PURCHASE] - 1).max() > 0.1


def test_chances_are_higher_for_what_a_shopper_likes(client: Client) -> None:
    liked, others = [], []
    for shopper in range(15):
        said = chances(rank(client, f"user-{shopper}", EVERYTHING))
        there = np.array([item_id.startswith(taste_of(shopper).lower()) for item_id in EVERYTHING])
        liked.append(said[there].mean())
        others.append(said[~there].mean())
    assert np.mean(liked) > 1.5 * np.mean(others)


def test_an_event_that_the_shop_has_too_few_of_has_no_chance(client: Client) -> None:
    answer = rank(client, "user-2", EVERYTHING, event_type=CART)
    assert answer.tier == rec.TIER_FULL
    assert not any(result.HasField("probability") for result in answer.results)


def test_no_chance_is_told_where_no_model_answers(client: Client) -> None:
    answer = rank(client, uuid4().hex, EVERYTHING)
    assert answer.tier == rec.TIER_POPULAR
    assert not any(result.HasField("probability") for result in answer.results)


def unlisted(of: str) -> catalog_pb2.Item:
    known = item(of, 4)
    return catalog_pb2.Item(
        item_id=f"unlisted-{uuid4().hex}",
        title=known.title or "",
        category_path=known.category_path,
        brand=known.brand or "",
        price=known.price,
        attributes=known.attributes,
    )


def test_an_item_that_no_catalogue_holds_is_scored_by_the_content_that_comes_along(client: Client) -> None:
    sent = [unlisted(of) for of in TASTES]
    for of in TASTES:
        answer = rank(client, uuid4().hex, ["nobody-knows"], items=sent, recent_events=views(of))
        assert ids(answer.results) == ["nobody-knows", *(new.item_id for new in sent)]
        assert [result.unknown for result in answer.results] == [True, False, False, False]
        assert max(answer.results[1:], key=lambda result: result.score).item_id == sent[TASTES.index(of)].item_id
        assert chances(answer).min() > 0
    stored = client.catalog.ListItems(catalog_pb2.ListItemsRequest(page_size=1000))
    assert not any(known.item_id.startswith("unlisted") for known in stored.items)


def test_content_of_an_item_that_the_catalogue_holds_changes_nothing(client: Client) -> None:
    sent = unlisted("Garden")
    sent.item_id = "music-03"
    answer = rank(client, "user-2", ["music-03"], items=[sent])
    assert answer.results[1].score == pytest.approx(answer.results[0].score)


def test_interests_that_rise_and_fade_are_those_that_differ(client: Client) -> None:
    shopper = 9
    lasting, passing = taste_of(shopper), "Music" if taste_of(shopper) != "Music" else "Garden"
    answer = interests(client, f"user-{shopper}", *views(passing))
    assert {change.category_path[0] for change in answer.rising} == {passing}
    assert lasting in {change.category_path[0] for change in answer.fading}
    for changes, sign in ((answer.rising, 1), (answer.fading, -1)):
        differences = [sign * (change.current_strength - change.long_term_strength) for change in changes]
        assert differences == sorted(differences, reverse=True) and differences[-1] >= 0.05
    rising = sum(change.current_strength for change in answer.rising)
    assert rising <= share(answer.current, passing) + 1e-6
    assert 0 <= answer.long_term_weight <= 1 and answer.HasField("last_event_time")


def test_somebody_known_may_come_back_and_of_a_stranger_nothing_is_told(client: Client) -> None:
    assert 0 < interests(client, "user-3").return_probability < 1
    assert interests(client, uuid4().hex, *views("Music")).HasField("return_probability")
    stranger = interests(client, uuid4().hex)
    assert not stranger.HasField("return_probability") and not stranger.rising and not stranger.fading


def test_without_the_named_item_a_score_falls_further_than_without_another(client: Client) -> None:
    draw = np.random.default_rng(0)
    named, others = [], []
    for shopper in range(30):
        of, beside = TASTES[shopper % 3], TASTES[(shopper + 1) % 3]
        seen = [f"{of.lower()}-{number:02}" for number in draw.choice(20, 4, replace=False)]
        seen += [f"{beside.lower()}-{number:02}" for number in draw.choice(20, 2, replace=False)]
        visit = [new_event(VIEW, item_id) for item_id in draw.permutation(seen)]
        who = {"user_id": f"user-{shopper}"} if shopper % 2 else {"session_id": uuid4().hex}
        answer = client.recommend(**who, recent_events=visit, explain=True, page_size=5)
        for result in answer.results:
            because = [item_id for item_id in result.reason.because_item_ids if item_id in seen]
            if not because:
                continue
            another = draw.choice([item_id for item_id in seen if item_id != because[0]])
            scores = [
                client.recommendations.Rank(
                    rec.RankRequest(
                        **who,
                        item_ids=[result.item_id],
                        recent_events=[event for event in visit if event.item_id != left_out],
                    )
                )
                .results[0]
                .score
                for left_out in ("", because[0], another)
            ]
            named.append(scores[0] - scores[1])
            others.append(scores[0] - scores[2])
    assert len(named) > 50
    assert np.mean(named) > np.mean(others) + 0.05
    assert np.mean(np.array(named) >= np.array(others) - 1e-3) > 0.9
