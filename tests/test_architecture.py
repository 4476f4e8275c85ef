"""Who may import whom, read from the source; and that Triton's configurations name the tensors of the schema."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from google.protobuf import text_format
from torch import nn
from tritonclient.grpc import model_config_pb2

from features import schema
from features.settings import ROOT
from server.infer.triton import MAX_BATCH
from training.export import FusionServing, TowerServing

Imports = dict[Path, set[str]]

FORBIDDEN = [
    ("features", {"server", "training", "torch", "grpc", "tritonclient", "braid"}),
    ("training", {"server", "grpc", "tritonclient", "braid"}),
    ("server", {"training", "torch"}),
]


def modules(package: str) -> Iterator[Path]:
    """Every source file of a package."""
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"{package}/ holds no module"
    return iter(found)


def imported(path: Path) -> set[str]:
    """Full names of everything that a module imports, anywhere in it; `from a import b` gives a and a.b."""
    names: set[str] = set()
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            names.update([source, *(f"{source}.{alias.name}" for alias in node.names)])
    return names


@cache
def imports_of(package: str) -> Imports:
    """Imports of each module of a package."""
    return {path.relative_to(ROOT): imported(path) for path in modules(package)}


def importers(package: str, *targets: str) -> set[str]:
    """Modules of a package that import one of the targets or something below it."""
    return {
        str(path)
        for path, names in imports_of(package).items()
        if any(name == target or name.startswith(target + ".") for name in names for target in targets)
    }


def test_schema_imports_the_standard_library_alone() -> None:
    roots = {name.split(".")[0] for name in imported(ROOT / "features/schema.py")}
    assert roots <= sys.stdlib_module_names


@pytest.mark.parametrize(("package", "forbidden"), FORBIDDEN)
def test_package_imports_nothing_that_is_not_its_business(package: str, forbidden: set[str]) -> None:
    assert importers(package, *forbidden) == set()


def test_generated_types_stop_at_the_service_modules() -> None:
    inside = {path for path in importers("server", "braid") if not path.startswith("server/services/")}
    assert inside <= {"server/gateway.py"}, "gateway.py registers the services; nothing else needs their types"


@pytest.mark.parametrize("target", [("feast", "features.store", "features.online"), ("tritonclient",)])
def test_one_module_of_the_gateway_knows(target: tuple[str, ...]) -> None:
    assert len(importers("server", *target)) == 1


CONFIGURED = [
    (schema.FUSION_MODEL, schema.FUSION_INPUTS, schema.FUSION_OUTPUTS, FusionServing),
    (schema.ITEM_TOWER_MODEL, schema.ITEM_TOWER_INPUTS, schema.ITEM_TOWER_OUTPUTS, TowerServing),
]


Tensors = tuple[schema.Tensor, ...]


@pytest.mark.parametrize(("model", "inputs", "outputs", "module"), CONFIGURED)
def test_configuration_names_the_tensors_of_the_schema(
    model: str, inputs: Tensors, outputs: Tensors, module: type[nn.Module]
) -> None:
    config = configuration(model)
    assert [_tensor(entry) for entry in config.input] == [(t.name, f"TYPE_{t.dtype}", t.dims) for t in inputs]
    expected = [(schema.output_name(i, t), f"TYPE_{t.dtype}", t.dims) for i, t in enumerate(outputs)]
    assert [_tensor(entry) for entry in config.output] == expected
    taken = list(inspect.signature(module.forward).parameters)[1:]
    assert taken == [entry.name for entry in config.input], "LibTorch's backend takes inputs by the argument's name"


@pytest.mark.parametrize("model", [schema.FUSION_MODEL, schema.ITEM_TOWER_MODEL])
def test_configuration_is_complete_for_both_runtimes(model: str) -> None:
    config = configuration(model)
    assert (config.name, config.backend, config.platform) == (model, "pytorch", "pytorch_libtorch")
    assert config.max_batch_size == MAX_BATCH, "the gateway's batches are what Triton takes"
    assert config.HasField("dynamic_batching")
    assert [(group.kind, group.count) for group in config.instance_group] == [
        (model_config_pb2.ModelInstanceGroup.KIND_AUTO, 1)
    ]
    assert config.version_policy.WhichOneof("policy_choice") == "specific", (
        "versions are loaded by name, not the latest"
    )
    assert list(config.parameters) == ["INTRA_OP_THREAD_COUNT"]  # inter-op: a second load would abort the server
    set_fields = {field.name for field, _ in config.ListFields()}
    assert set_fields == {
        *("name", "platform", "backend", "max_batch_size", "input", "output"),
        *("dynamic_batching", "instance_group", "version_policy", "parameters"),
    }  # no warm-up: the width of `long_interest` is the release's; the gateway asks before it switches


def configuration(model: str) -> model_config_pb2.ModelConfig:
    """A model's config.pbtxt; one with an unknown field does not parse."""
    text = (ROOT / "model_repository" / model / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def _tensor(entry: model_config_pb2.ModelInput | model_config_pb2.ModelOutput) -> tuple[str, str, tuple[int, ...]]:
    return entry.name, model_config_pb2.DataType.Name(entry.data_type), tuple(entry.dims)
