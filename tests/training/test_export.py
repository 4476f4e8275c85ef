"""The served module: the contract's tensors, the filter, the cold cases, and the same scores as in training."""

import inspect

import numpy as np
import pytest
import torch
from torch import Tensor

from features.inputs.codes import CodeVocabularies
from features.schema import (
    CONTENT_TOKENS,
    FUSION_INPUTS,
    FUSION_OUTPUTS,
    ITEM_TOWER_INPUTS,
    PADDING,
    TOP_ITEMS,
    UNKNOWN,
)
from training.config import ModelConfig
from training.export import REFUSED_SCORE, FusionServing, TowerServing
from training.fusion import FusionModel
from training.item_tower import ItemTower
from training.samples import random_inputs
from training.trained import TrainedModel
from training.transitions import FOLLOWERS, Followers

CODES = 30
DTYPES = {"FP32": torch.float32, "INT32": torch.int32}


def random_model(items: int) -> FusionModel:
    torch.manual_seed(items)
    content = torch.randint(0, CODES, (items, CONTENT_TOKENS))
    none = CodeVocabularies(gender={}, country={}, device={})
    followers = Followers(
        items=torch.randint(-1, items, (items, FOLLOWERS), dtype=torch.int32),
        counts=torch.rand(items, FOLLOWERS) * 9,
        floors=torch.zeros(items),
        before=torch.rand(items) * 99,
        after=torch.rand(items) * 99,
    )
    tower = ItemTower(content, torch.ones(items), CODES, 16)
    model = FusionModel(ModelConfig(dim=16, transitions=True, covisitation=True), tower, none)
    model.transitions.learn_from(followers)
    model.covisitation.learn_from(followers)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model.eval()


def call(model: FusionModel, inputs: dict[str, np.ndarray]) -> dict[str, Tensor]:
    with torch.inference_mode():
        given = FusionServing(model).eval()(*[torch.from_numpy(inputs[tensor.name]) for tensor in FUSION_INPUTS])
    return {tensor.name: value for tensor, value in zip(FUSION_OUTPUTS, given, strict=True)}


def inputs_for(model: FusionModel, count: int = 4, /, **changes: np.ndarray) -> dict[str, np.ndarray]:
    items = model.tower.ids.num_embeddings
    return random_inputs(16, items, CODES, model.code_sizes, count, seed=5) | changes


def all_items(count: int) -> np.ndarray:
    return np.zeros((count, 1), np.uint8)


def test_arguments_and_results_are_the_contract() -> None:
    model = random_model(300)
    names = list(inspect.signature(FusionServing.forward).parameters)[1:]
    assert names == [tensor.name for tensor in FUSION_INPUTS]
    assert list(inspect.signature(TowerServing.forward).parameters)[1:] == [tensor.name for tensor in ITEM_TOWER_INPUTS]
    given = call(model, inputs_for(model))
    for tensor in FUSION_OUTPUTS:
        sizes = {"candidate_scores": (16,), "interest": (16,)}.get(tensor.name, tensor.dims)
        assert tuple(given[tensor.name].shape) == (4, *sizes)
        assert given[tensor.name].dtype == DTYPES[tensor.dtype]


def test_a_score_is_interest_times_vector_plus_bias_plus_repeat_term() -> None:
    model = random_model(50)
    nothing_own = np.full((4, 128), PADDING, np.int32)
    no_recent = {"recent_items": np.full((4, 50), PADDING, np.int32), "recent_types": np.zeros((4, 50), np.int32)}
    candidates = np.tile(np.arange(50, dtype=np.int32), (4, 1))
    given = call(model, inputs_for(model, own_items=nothing_own, candidates=candidates) | no_recent)
    with torch.inference_mode():
        vectors, bias = model.tower()
    torch.testing.assert_close(given["candidate_scores"], given["interest"] @ vectors.T + bias)


@pytest.mark.parametrize("items", [1, 5, 8, 9, 300])
def test_only_allowed_items_come_back_best_first(items: int) -> None:
    model = random_model(items)
    rng = np.random.default_rng(items)
    kept = rng.random((4, items)) < 0.5
    kept[:, 0] = True
    allowed = np.packbits(kept, axis=1, bitorder="little")
    candidates = np.tile(np.arange(items, dtype=np.int32), (4, 1))
    given = call(model, inputs_for(model, allowed=allowed, candidates=candidates))
    for row in range(4):
        scores = given["candidate_scores"][row].numpy()
        best = sorted(np.flatnonzero(kept[row]), key=lambda item: -scores[item])[:TOP_ITEMS]
        found = given["top_items"][row].numpy()
        assert found[: len(best)].tolist() == best
        assert (found[len(best) :] == PADDING).all()
        assert np.isfinite(given["top_scores"][row].numpy()).all()


def test_one_zero_byte_allows_everything_and_more_zero_bytes_nothing() -> None:
    model = random_model(5)
    everything = call(model, inputs_for(model, allowed=all_items(4)))
    assert (everything["top_items"][:, :5].sort(dim=1).values == torch.arange(5)).all()
    nothing = call(model, inputs_for(model, allowed=np.zeros((4, 2), np.uint8)))
    assert (nothing["top_items"] == PADDING).all()
    assert (nothing["top_scores"] == REFUSED_SCORE).all()


def test_missing_bits_refuse() -> None:
    model = random_model(300)
    given = call(model, inputs_for(model, allowed=np.full((4, 2), 255, np.uint8)))
    assert given["top_items"].max() == 15


def test_an_unknown_item_counts_through_its_content() -> None:
    model = random_model(50)
    recent = np.full((2, 50), PADDING, np.int32)
    recent[:, -1] = UNKNOWN
    types = np.zeros((2, 50), np.int32)
    types[:, -1] = 1
    content = np.zeros((2, 50, CONTENT_TOKENS), np.int32)
    content[0, -1, :3] = [4, 5, 6]
    given = call(
        model,
        inputs_for(model, 2, recent_items=recent, recent_types=types, recent_content=content)
        | {"recent_ages": np.zeros((2, 50), np.float32)},
    )
    assert not torch.allclose(given["interest"][0], given["interest"][1])
    assert given["recent_weights"][:, -1].tolist() == pytest.approx([1.0, 1.0])


def test_without_either_strand_the_answer_is_finite_and_weights_nothing() -> None:
    model = random_model(50)
    nobody = {
        "long_mask": np.zeros((4, 1), np.float32),
        "recent_items": np.full((4, 50), PADDING, np.int32),
        "recent_types": np.zeros((4, 50), np.int32),
        "recent_ages": np.zeros((4, 50), np.float32),
        "own_items": np.full((4, 128), PADDING, np.int32),
    }
    given = call(model, inputs_for(model) | nobody)
    assert given["recent_weights"].abs().sum() == 0
    assert given["long_weight"].abs().sum() == 0
    assert all(torch.isfinite(value.float()).all() for value in given.values())


def test_the_long_weight_is_one_where_it_stands_alone_and_recent_weights_sum_to_one() -> None:
    model = random_model(50)
    inputs = inputs_for(model, 16)
    given = call(model, inputs)
    some = torch.from_numpy(inputs["recent_types"][:, -1] > 0)
    long = torch.from_numpy(inputs["long_mask"][:, 0] > 0)
    assert torch.allclose(given["recent_weights"].sum(dim=1), some.float(), atol=1e-5)
    weight = given["long_weight"][:, 0]
    assert (weight[long & ~some] == 1).all() and (weight[~long] == 0).all()
    assert ((weight[long & some] > 0) & (weight[long & some] < 1)).all()


def test_a_row_does_not_depend_on_its_batch() -> None:
    model = random_model(50)
    inputs = inputs_for(model, 8)
    whole = call(model, inputs)
    alone = call(model, {name: value[3:4] for name, value in inputs.items()})
    for name in whole:
        torch.testing.assert_close(whole[name][3:4], alone[name], atol=1e-5, rtol=1e-5)


def test_a_candidate_that_is_padding_scores_lowest() -> None:
    model = random_model(50)
    given = call(model, inputs_for(model, candidates=np.full((4, 3), PADDING, np.int32)))
    assert (given["candidate_scores"] == REFUSED_SCORE).all()


def test_serving_scores_what_training_scored(trained: TrainedModel) -> None:
    samples = trained.samples
    candidates = np.tile(np.arange(trained.items.height, dtype=np.int32), (len(samples["long_mask"]), 1))
    given = call(trained.model, samples | {"candidates": candidates})
    torch.testing.assert_close(given["candidate_scores"].numpy(), samples["expected_scores"], atol=1e-4, rtol=1e-4)
