"""The commands that pages, docstrings and messages name are there, with the options that they name."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec

from typer.core import TyperGroup
from typer.main import get_command

from features.settings import ROOT

PACKAGES = ("features", "training", "server", "demo", "deploy")
NAMED = re.compile(rf"python -m ((?:{'|'.join(PACKAGES)})(?:\.[a-z_]+)*)((?: [^\n`\"|#]*)?)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
SOURCES = sorted(
    path
    for folder, pattern in (
        (".", "*.md"),
        ("docs", "*.md"),
        *((package, "**/*.py") for package in (*PACKAGES, "benchmarks")),
    )
    for path in (ROOT / folder).glob(pattern)
)


def missing(module: str, rest: str) -> str:
    """What there is not of `python -m MODULE REST`; empty where all is there."""
    spec = find_spec(module)
    if spec is None:
        return f"module {module}"
    program = import_module(f"{module}.__main__" if spec.submodule_search_locations else module)
    if not hasattr(program, "app"):  # a program without options
        return ""
    command, words = get_command(program.app), rest.split()
    while isinstance(command, TyperGroup) and words and re.fullmatch(r"[a-z-]+[.,;:]?", words[0]):
        name = words.pop(0).rstrip(".,;:")
        if name not in command.commands:
            return f"command {name}"
        command = command.commands[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return ", ".join(option for word in words for option in OPTION.findall(word) if option not in known)


def test_every_command_that_is_named_is_there() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {found[0].strip()}: {lacks}"
        for path in SOURCES
        for found in NAMED.finditer(path.read_text().replace("\\\n", ""))
        if (lacks := missing(found[1], found[2]))
    ]
    assert wrong == []
