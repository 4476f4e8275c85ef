"""What is looked at together: companions counted by hand, and a mixture of probabilities."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from features.inputs.content import fit_vocabulary
from features.schema import PADDING, UNKNOWN, EventType
from tests.training.conftest import SMALL
from tests.training.shops import DAY_MS, START_MS, Row, write_shop
from training import evaluate
from training.batches import BatchMaker
from training.covisitation import BACKWARD, TRUST, VOTERS, CovisitMixture, mixed
from training.dataset import Log, read_log
from training.fit import empty_model, take_note
from training.fusion import SIGNALS
from training.moments import Moments
from training.scoring import read_batch
from training.transitions import FADING, FOLLOWERS, Followers
from training.trust import learn_trust

MIXED = replace(SMALL, model=replace(SMALL.model, transitions=False, covisitation=True))


def views(shopper: str, *items: int) -> list[Row]:
    """One a day."""
    return [
        (f"u:{shopper}", f"i{item:03d}", EventType.VIEW, START_MS + day * DAY_MS, None, None)
        for day, item in enumerate(items)
    ]


def everything(log: Log) -> np.ndarray:
    return np.ones(len(log.items), bool)


def called(term: CovisitMixture, *recent: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For one moment after views of these items."""
    items = torch.tensor([recent], dtype=torch.int64).reshape(1, len(recent))
    with torch.no_grad():
        given = term(items, torch.ones_like(items), torch.zeros(items.shape), torch.zeros(1, SIGNALS))
    return given[0], given[1], given[2]


def test_companions_are_those_that_came_most_often_and_soonest_and_less_so_what_came_before(tmp_path: Path) -> None:
    log, _ = read_log(write_shop(tmp_path, views("a", 0, 1, 2) + views("b", 0, 2)))
    companions = Followers.of(log, everything(log), BACKWARD)
    assert companions.items[0, :3].tolist() == [2, 1, -1]
    assert companions.counts[0, :3].tolist() == pytest.approx([FADING + 1, 1, 0])
    assert companions.items[2, :3].tolist() == [0, 1, -1]
    assert companions.counts[2, :3].tolist() == pytest.approx([BACKWARD * (FADING + 1), BACKWARD, 0])
    assert companions.before[0] == pytest.approx(FADING + 2)
    assert companions.after[0] == pytest.approx(BACKWARD * (FADING + 2))
    last = np.arange(len(log.items)) != log.starts[1] - 1  # the last event of `a` is kept for a test
    assert Followers.of(log, last, BACKWARD).counts[0, :2].tolist() == pytest.approx([1, 1])


def test_shares_sum_to_one_and_a_common_companion_has_the_larger(tmp_path: Path) -> None:
    streams = [views(str(shopper), 0, 1) for shopper in range(5)] + [views("x", 0, 2), views("y", 3, 1)]
    log, _ = read_log(write_shop(tmp_path, [row for stream in streams for row in stream]))
    term = CovisitMixture(Followers.of(log, everything(log), BACKWARD), SIGNALS, time=True)
    items, shares, trust = called(term, 3, 0)
    assert shares.sum().item() == pytest.approx(1.0)
    of_item = {item: float(shares[items == item].sum()) for item in (1, 2)}
    assert of_item[1] > of_item[2] > 0
    assert trust.sigmoid().item() == pytest.approx(TRUST)


def test_mixed_scores_are_the_log_of_mixed_probabilities() -> None:
    scores = torch.randn(2, 5)
    items = torch.tensor([[1, 3, 1, -1], [-1, -1, -1, -1]])
    shares = torch.tensor([[0.2, 0.5, 0.3, 0.0], [0.0, 0.0, 0.0, 0.0]])
    trust = torch.tensor([[0.4], [2.0]])
    found = mixed(scores, items, shares, trust)
    share = trust.sigmoid()[0]
    expected = (1 - share) * scores[0].softmax(0) + share * torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    torch.testing.assert_close(found[0].softmax(0), expected)
    assert torch.equal(found[1], scores[1])  # nobody voted


def test_only_the_newest_events_vote() -> None:
    items, counts = torch.full((3, FOLLOWERS), -1, dtype=torch.int32), torch.zeros(3, FOLLOWERS)
    items[0, 0], items[1, 0], counts[:2, 0] = 1, 2, 5.0
    term = CovisitMixture(replace(Followers.none(3), items=items, counts=counts), SIGNALS, time=True)
    assert set(called(term, 0, *[1] * VOTERS)[0].flatten().tolist()) == {2, -1}
    assert set(called(term, 0, *[1] * (VOTERS - 1))[0].flatten().tolist()) == {1, 2, -1}


def test_padding_unknown_items_and_no_events_have_no_votes() -> None:
    items, counts = torch.zeros(3, FOLLOWERS, dtype=torch.int32), torch.ones(3, FOLLOWERS)
    term = CovisitMixture(replace(Followers.none(3), items=items, counts=counts), SIGNALS, time=True)
    recent = torch.tensor([[PADDING, UNKNOWN, 2]])
    types = torch.tensor([[0, 1, 0]])
    items, shares, trust = term(recent, types, torch.zeros(1, 3), torch.zeros(1, SIGNALS))
    assert (items.max(), shares.abs().max()) == (-1, 0)
    assert torch.isfinite(trust).all()
    items, shares, trust = called(term)
    assert items.shape == shares.shape == (1, 0)
    scores = torch.randn(1, 3)
    assert torch.equal(mixed(scores, items, shares, trust), scores)


@pytest.mark.parametrize("knows", [False, True])
def test_companions_are_trusted_as_far_as_they_tell_more_than_the_model_does(tmp_path: Path, knows: bool) -> None:
    """Item n is followed by n + 1, which a model with a transition term is surer of than ten voters are."""
    streams = [views(str(shopper), *(shopper + np.arange(12)) % 30) for shopper in range(60)]
    log, _ = read_log(write_shop(tmp_path, [row for stream in streams for row in stream]))
    last = log.starts[1:] - 1
    learn = np.ones(len(log.items), bool)
    learn[last] = False
    asked = Moments(shoppers=np.arange(60), times_ms=log.times_ms[last], targets=log.items[last], offsets=np.arange(61))
    stage = evaluate.Stage(log=log, learn=learn, moments=asked, test=full_test(asked, log.item_count))
    config = replace(MIXED, model=replace(MIXED.model, transitions=knows))
    model = empty_model(log, fit_vocabulary(log.catalogue), config)
    take_note(model, stage)
    with torch.no_grad():  # as a term that has learned: the more often, the surer
        weights, hinges = model.transitions.event[2], model.transitions.hinges
        weights.weight.zero_(), weights.bias.fill_(1.0)
        hinges.weight.zero_(), hinges.bias.zero_(), hinges.weight[:, 0].fill_(1.0)
    learned = {name: weight.clone() for name, weight in model.named_parameters() if "covisitation" not in name}
    maker = BatchMaker.of(model, log)
    learn_trust(model, maker, asked, "cpu")
    (batch,) = maker.batches(maker.ask(asked), batch_examples=60)
    with torch.no_grad():
        signals = read_batch(model, batch).signals
        _, _, trust = model.covisitation(batch.seen_items, batch.seen_types, batch.seen_ages, signals)
    assert bool((trust.sigmoid() > TRUST).all()) is not knows
    assert all(torch.equal(weight, learned[name]) for name, weight in model.named_parameters() if name in learned)


def full_test(moments: Moments, items: int) -> evaluate.TestSet:
    """All items may be ranked."""
    repeated = np.zeros(len(moments.targets), bool)
    return evaluate.TestSet(moments=moments, allowed=np.ones(items, bool), repeated=repeated)
