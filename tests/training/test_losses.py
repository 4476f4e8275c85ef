"""The loss in one pass over chunks: its value by hand, its gradients beside autograd's, and the sampled one."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from training.losses import CHUNK_LOGITS, Reading, own_items_loss, sampled_loss, softmax_loss


def of_logits(logits: Tensor) -> Reading:
    """A reading with these logits and nothing added."""
    rows = len(logits)
    return Reading(
        interest=logits,
        vectors=torch.eye(logits.shape[1]),
        bias=torch.zeros(logits.shape[1]),
        extra_items=torch.zeros(rows, 0, dtype=torch.int64),
        extra_values=torch.zeros(rows, 0),
        own_columns=2,
        long_weight=torch.zeros(rows, 1),
        signals=torch.zeros(rows, 0),
    )


def random_reading(rows: int, items: int, dim: int = 6) -> Reading:
    generator = torch.Generator().manual_seed(3)
    extra = torch.randint(-1, items, (rows, 4), generator=generator)
    return Reading(
        interest=torch.randn(rows, dim, generator=generator).requires_grad_(),
        vectors=torch.randn(items, dim, generator=generator).requires_grad_(),
        bias=torch.randn(items, generator=generator).requires_grad_(),
        extra_items=extra,
        extra_values=torch.randn(rows, 4, generator=generator).requires_grad_(),
        own_columns=2,
        long_weight=torch.zeros(rows, 1),
        signals=torch.zeros(rows, 0),
    )


def test_loss_is_the_weighted_mean_over_moments_of_the_mean_over_targets() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    rows, items = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 2])
    loss = softmax_loss(of_logits(logits), rows, items, torch.tensor([1.0, 3.0]))
    first = -(math.log(0.5) + math.log(0.25)) / 2
    assert float(loss) == pytest.approx((first + 3 * -math.log(0.8)) / 4, rel=1e-5)


def test_gradients_are_those_of_autograd_however_the_rows_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHUNK_LOGITS, "cpu", 1)  # sixteen rows at a time
    reading = random_reading(37, 11)
    rows = torch.arange(37).repeat_interleave(2)
    items = torch.randint(0, 11, (74,), generator=torch.Generator().manual_seed(1))
    weight = torch.rand(37, generator=torch.Generator().manual_seed(2)) + 0.5
    wanted = [reading.interest, reading.vectors, reading.bias, reading.extra_values]
    logs = torch.log_softmax(reading.logits(), dim=1)[rows, items].reshape(37, 2).mean(dim=1)
    plain = -(logs * weight).sum() / weight.sum()
    expected = torch.autograd.grad(plain, wanted)
    loss = softmax_loss(reading, rows, items, weight)
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
    for given, right in zip(torch.autograd.grad(loss, wanted), expected, strict=True):
        torch.testing.assert_close(given, right, atol=1e-5, rtol=1e-4)


def test_a_sample_that_holds_every_item_is_the_full_softmax() -> None:
    reading = random_reading(5, 8)
    rows, items, weight = torch.arange(5), torch.tensor([1, 2, 3, 4, 5]), torch.ones(5)
    torch.manual_seed(0)
    with torch.no_grad():
        sampled = sampled_loss(reading, rows, items, weight, torch.full((8,), 1 / 8), draws=2000)
        full = softmax_loss(reading, rows, items, weight)
    assert float(sampled) == pytest.approx(float(full), rel=1e-5)


def test_a_sample_estimates_the_sum_over_the_catalogue_without_bias() -> None:
    items, draws = 400, 60
    logits = torch.randn(1, items, generator=torch.Generator().manual_seed(5))
    target, weight = torch.tensor([7]), torch.ones(1)
    chances = torch.linspace(1, 5, items)
    chances = chances / chances.sum()
    torch.manual_seed(1)
    totals = []
    for _ in range(600):
        loss = float(sampled_loss(of_logits(logits), torch.tensor([0]), target, weight, chances, draws=draws))
        totals.append(math.exp(loss + float(logits[0, 7])))
    assert sum(totals) / 600 == pytest.approx(float(logits.exp().sum()), rel=0.05)


def test_own_items_and_targets_are_in_every_sample_and_count_once() -> None:
    """All other items are out of reach, so a small sample gives the full softmax exactly."""
    logits = torch.full((2, 1000), -1e4)
    logits[0, [3, 4, 5]] = torch.tensor([0.1, 0.7, -0.3])
    logits[1, [4, 9]] = torch.tensor([0.5, 0.2])
    own = torch.tensor([[3, 4, 3], [9, -1, -1]])
    reading = replace(of_logits(logits), extra_items=own, extra_values=torch.rand(2, 3) * (own >= 0), own_columns=3)
    rows, items, weight = torch.arange(2), torch.tensor([5, 4]), torch.ones(2)
    chances = torch.full((1000,), 1e-3)
    torch.manual_seed(0)
    sampled = sampled_loss(reading, rows, items, weight, chances, draws=20)
    assert float(sampled) == pytest.approx(float(softmax_loss(reading, rows, items, weight)), rel=1e-4)


def with_own(logits: Tensor, items: list[list[int]], values: list[list[float]]) -> Reading:
    """A reading of these logits whose first two columns of what is added are own items."""
    return replace(of_logits(logits), extra_items=torch.tensor(items), extra_values=torch.tensor(values))


def test_own_items_are_compared_among_themselves_with_all_that_is_added_to_them() -> None:
    logits = torch.log(torch.tensor([[9.0, 1.0, 2.0, 5.0], [1.0, 1.0, 1.0, 1.0]]))
    two, three = math.log(2.0), math.log(3.0)
    # The first has items 1 and 2, and something follows 2 and 3; the second has item 0, named twice, and 3.
    reading = with_own(logits, [[1, 2, 2, 3], [0, 0, -1, -1]], [[three, 0.0, two, 7.0], [two, two, 5.0, 5.0]])
    loss = own_items_loss(reading, torch.tensor([0, 0, 1]), torch.tensor([1, 0, 0]), torch.tensor([1.0, 3.0]))
    assert float(loss) == pytest.approx((math.log(7 / 3) + 3 * 0.0) / 4, rel=1e-5)  # 3 of 1 * 3 + 2 * 2, and 4 of 4


def test_moments_that_buy_no_own_item_count_for_nothing_among_own_items() -> None:
    reading = with_own(torch.zeros(2, 4), [[1, 2], [0, 3]], [[0.0, 0.0], [0.0, 0.0]])
    wanted = torch.tensor([0, 1]), torch.tensor([1, 1])
    assert float(own_items_loss(reading, *wanted, torch.tensor([1.0, 9.0]))) == pytest.approx(math.log(2.0))
    nothing = own_items_loss(reading, torch.tensor([0]), torch.tensor([3]), torch.ones(2))
    assert float(nothing) == 0.0


def test_among_own_items_only_what_is_added_to_them_learns_and_by_the_plain_formula() -> None:
    reading = random_reading(20, 7)
    rows = torch.arange(20).repeat_interleave(3)
    items = torch.randint(0, 7, (60,), generator=torch.Generator().manual_seed(1))
    weight = torch.rand(20, generator=torch.Generator().manual_seed(2)) + 0.5
    own = torch.zeros(20, 8).scatter_(1, reading.extra_items[:, :2] + 1, 1.0)[:, 1:] > 0  # column 0 is for none
    logs = torch.log_softmax(reading.logits().masked_fill(~own, -1e9), dim=1)[rows, items]
    counts = (hits := own[rows, items]).float().reshape(20, 3).sum(dim=1)
    moments = (logs * hits).reshape(20, 3).sum(dim=1)[counts > 0] / counts[counts > 0]
    plain = -(moments * weight[counts > 0]).sum() / weight[counts > 0].sum()
    loss = own_items_loss(reading, rows, items, weight)
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
    (expected,) = torch.autograd.grad(plain, [reading.extra_values])
    parts = [reading.extra_values, reading.interest, reading.vectors, reading.bias]
    found, *others = torch.autograd.grad(loss, parts, allow_unused=True)
    assert torch.allclose(found, expected, atol=1e-6)
    assert others == [None] * 3
