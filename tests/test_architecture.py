"""Who may import whom, read from the source; and that Triton's configurations name the tensors of the schema."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from features import schema
from features.settings import ROOT

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
    (schema.FUSION_MODEL, schema.FUSION_INPUTS, schema.FUSION_OUTPUTS),
    (schema.ITEM_TOWER_MODEL, schema.ITEM_TOWER_INPUTS, schema.ITEM_TOWER_OUTPUTS),
]


@pytest.mark.parametrize(("model", "inputs", "outputs"), CONFIGURED)
def test_configuration_names_the_tensors_of_the_schema(
    model: str, inputs: tuple[schema.Tensor, ...], outputs: tuple[schema.Tensor, ...]
) -> None:
    text = (ROOT / "model_repository" / model / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert [_tensor(entry) for entry in config.input] == [(t.name, f"TYPE_{t.dtype}", t.dims) for t in inputs]
    expected = [(schema.output_name(i, t), f"TYPE_{t.dtype}", t.dims) for i, t in enumerate(outputs)]
    assert [_tensor(entry) for entry in config.output] == expected
    assert (config.name, config.backend, config.platform) == (model, "pytorch", "pytorch_libtorch")
    assert "INTER_OP_THREAD_COUNT" not in config.parameters  # loading the model a second time would abort the server


def _tensor(entry: model_config_pb2.ModelInput | model_config_pb2.ModelOutput) -> tuple[str, str, tuple[int, ...]]:
    return entry.name, model_config_pb2.DataType.Name(entry.data_type), tuple(entry.dims)
