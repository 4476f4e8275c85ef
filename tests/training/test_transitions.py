"""The transition term: followers counted by hand, and nothing of the answer in what it is trained on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from features.schema import PADDING, UNKNOWN, EventType
from tests.training.shops import DAY_MS, START_MS, Row, write_shop
from training.batches import BatchMaker
from training.dataset import Log, read_log
from training.fusion import SIGNALS
from training.moments import Moments
from training.transitions import (
    COMING,
    FADING,
    FOLLOWERS,
    VOTERS,
    WINDOW,
    Followers,
    TransitionTerm,
    own_pairs,
    transition_counts,
)


def views(shopper: str, *items: int) -> list[Row]:
    """One a day."""
    return [
        (f"u:{shopper}", f"i{item:03d}", EventType.VIEW, START_MS + day * DAY_MS, None, None)
        for day, item in enumerate(items)
    ]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    rng = np.random.default_rng(3)
    streams = [views(str(shopper), *rng.integers(0, 9, 14)) for shopper in range(12)]
    return read_log(write_shop(tmp_path, [row for stream in streams for row in stream]))[0]


def everything(log: Log) -> np.ndarray:
    return np.ones(len(log.items), bool)


def test_followers_are_those_that_came_most_often_and_soonest(tmp_path: Path) -> None:
    log, _ = read_log(write_shop(tmp_path, views("a", 0, 1, 2) + views("b", 0, 2)))
    followers = Followers.of(log, everything(log))
    assert followers.items[0, :3].tolist() == [2, 1, -1]
    assert followers.counts[0, :3].tolist() == pytest.approx([FADING + 1, 1, 0])
    assert followers.before[:3].tolist() == pytest.approx([FADING + 2, 1, 0])
    assert followers.after[:3].tolist() == pytest.approx([0, 1, FADING + 2])
    last = np.arange(len(log.items)) != log.starts[1] - 1  # the last event of `a` is kept for a test
    assert Followers.of(log, last).counts[0, :2].tolist() == pytest.approx([1, 1])


def test_a_shopper_s_own_pairs_are_not_counted(log: Log) -> None:
    """Taken off the counts, they leave what a log of all the others says."""
    learn = everything(log)
    counts = transition_counts(log, learn, WINDOW, FADING).toarray()
    moments = Moments(
        shoppers=np.repeat(np.arange(12), 13),
        times_ms=START_MS + np.tile(np.arange(1, 14), 12) * DAY_MS,
        targets=np.zeros(12 * 13, np.int32),
        offsets=np.arange(12 * 13 + 1),
    )
    maker = BatchMaker(log)
    (batch,) = maker.batches(maker.ask(moments), batch_examples=1000, learn=learn)
    assert batch.coming_items is not None
    voters = batch.seen_items[:, -VOTERS:]
    followers = torch.arange(9).repeat(len(moments), VOTERS, 1)
    own = own_pairs(voters, batch.seen_items, batch.coming_items, followers, WINDOW, FADING)
    for at, row in enumerate(batch.rows):
        known = log.shoppers != moments.shoppers[row]
        apart = transition_counts(log, known, WINDOW, FADING).toarray()
        for place, item in enumerate(voters[at].tolist()):
            if item >= 0:
                left = counts[item, :9] - own[at, place].numpy()
                np.testing.assert_allclose(left, apart[item, :9], atol=1e-5)


def test_events_that_are_not_learned_from_do_not_come_next(log: Log) -> None:
    learn = everything(log)
    learn[log.starts[1] - 1] = False
    moments = Moments(
        shoppers=np.zeros(1, np.int64),
        times_ms=np.array([START_MS + 12 * DAY_MS]),
        targets=np.zeros(1, np.int32),
        offsets=np.arange(2),
    )
    maker = BatchMaker(log)
    (batch,) = maker.batches(maker.ask(moments), batch_examples=1, learn=learn)
    assert batch.coming_items is not None
    assert batch.coming_items.tolist() == [[int(log.items[12]), -1]]
    (served,) = maker.batches(maker.ask(moments), batch_examples=1)
    assert served.coming_items is None


def test_pairs_that_only_one_shopper_made_tell_nothing(tmp_path: Path) -> None:
    streams = [views(str(shopper), *range(4 * shopper, 4 * shopper + 4)) for shopper in range(5)]
    log, _ = read_log(write_shop(tmp_path, [row for stream in streams for row in stream]))
    term = TransitionTerm(Followers.of(log, everything(log)), SIGNALS, time=True)
    recent = torch.tensor([[0, 1]])
    given = (recent, torch.ones(1, 2, dtype=torch.int64), torch.zeros(1, 2), torch.zeros(1, SIGNALS))
    items, values = term(*given, torch.tensor([[2, 3] + [-1] * (COMING - 2)]))
    assert set(items[values != 0].tolist()) == set()
    items, values = term(*given, None)
    assert set(items[values != 0].tolist()) == {1, 2, 3}


def test_padding_unknown_items_and_no_events_raise_nothing() -> None:
    items, counts = torch.zeros(3, FOLLOWERS, dtype=torch.int32), torch.ones(3, FOLLOWERS)
    followers = replace(Followers.none(3), items=items, counts=counts)
    term = TransitionTerm(followers, SIGNALS, time=True)
    recent = torch.tensor([[PADDING, UNKNOWN, 2]])
    types = torch.tensor([[0, 1, 0]])
    items, values = term(recent, types, torch.zeros(1, 3), torch.zeros(1, SIGNALS), None)
    assert (items.max(), values.abs().max()) == (-1, 0)
    nothing = torch.zeros(1, 0)
    items, values = term(nothing.long(), nothing.long(), nothing, torch.zeros(1, SIGNALS), None)
    assert items.shape == values.shape == (1, 0)


def test_a_follower_that_own_pairs_lifted_above_the_floor_is_none() -> None:
    items, counts = torch.full((3, FOLLOWERS), -1, dtype=torch.int32), torch.zeros(3, FOLLOWERS)
    items[0, :2], counts[0, :2] = torch.tensor([1, 2], dtype=torch.int32), torch.tensor([5.0, 2.5])
    followers = replace(Followers.none(3), items=items, counts=counts, floors=torch.tensor([2.0, 0.0, 0.0]))
    term = TransitionTerm(followers, SIGNALS, time=True)
    given = (torch.tensor([[0]]), torch.ones(1, 1, dtype=torch.int64), torch.zeros(1, 1), torch.zeros(1, SIGNALS))
    assert set(term(*given, None)[0].flatten().tolist()) == {1, 2, -1}
    coming = torch.tensor([[2] + [-1] * (COMING - 1)])
    assert set(term(*given, coming)[0].flatten().tolist()) == {1, -1}
