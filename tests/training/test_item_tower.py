"""Vectors and biases of items that were learned and of items that nobody has touched."""

import torch

from training.item_tower import ItemTower


def a_tower(*, use_content: bool = True) -> ItemTower:
    """Three items of two codes each, the last one without events, with biases of every kind."""
    tower = ItemTower(
        torch.tensor([[1, 2], [1, 3], [1, 2]]), torch.tensor([1.0, 1.0, 0.0]), 4, 8, use_content=use_content
    )
    tower.start_from(torch.randn(3, 8), torch.tensor([0.5, 0.25, 9.0]))
    with torch.no_grad():
        tower.code_bias.weight.copy_(torch.tensor([[0.0], [1.0], [3.0], [5.0]]))
        tower.new_bias.fill_(-4.0)
    return tower


def test_the_shared_bias_is_that_of_items_without_events_alone() -> None:
    _, bias = a_tower()()
    assert bias.tolist() == [2.0 + 0.5, 3.0 + 0.25, 2.0 - 4.0]
    assert a_tower(use_content=False)()[1].tolist() == [0.5, 0.25, -4.0]


def test_an_item_whose_id_is_left_out_stands_as_one_without_events_does() -> None:
    tower = a_tower()
    vectors, bias = tower(torch.tensor([[0.0], [1.0], [1.0]]))
    assert bias.tolist() == [-2.0, 3.25, -2.0]
    assert torch.equal(vectors[0], vectors[2])
    of_content = tower.of_content(tower.content)
    assert torch.equal(of_content[0][2], vectors[2])
    assert of_content[1].tolist()[2] == -2.0
