"""From raw data to live recommendations: `python -m demo run`.

Every step is the command that a person would type, run as a process of its own with its output shown. What is built
already is not built again: `demo.json` in the shop's home says which file the shop was built from and which steps ended
well.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from sqlalchemy import Engine

from deploy.embedded import stack
from deploy.embedded.checks import failed
from deploy.embedded.neighbours import holding_ports, short
from features.database.engine import DatabaseError, open_database
from features.log.event_log import EventLog
from features.releases.release_table import ReleaseTable
from features.settings import ROOT, Settings, load_settings

TRAINING_MINUTES = 3.0
"""After this no epoch is begun."""
STATE_FILE = "demo.json"
_ADDRESSES = ("BRAID_GATEWAY_ADDRESS", "BRAID_TRITON_ADDRESS", "BRAID_GATEWAY_METRICS_ADDRESS")


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """One shop of the demo.

    data: the event file. mapping: its name, found out from the columns if None. items: the file of items, what the
    mapping expects beside `data` if None. simulated: made by us under `data`'s folder, with its truth.
    """

    settings: Settings
    data: Path
    mapping: str | None
    items: Path | None = None
    simulated: bool

    @property
    def truth(self) -> Path | None:
        """Folder of the simulation whose truth is known."""
        return self.data.parent if self.simulated else None

    @property
    def prefix(self) -> str:
        """What stands before every command for this shop, such as `make down`: where it lives, and its ports."""
        values = {name: os.environ[name] for name in _ADDRESSES if os.environ.get(name)}
        if self.own_repository:
            values = {"BRAID_MODEL_REPOSITORY": short(self.settings.model_repository)} | values
        if self.own_repository or self.settings.home.resolve() != ROOT / "var":
            values = {"BRAID_HOME": short(self.settings.home)} | values
        return "".join(f"{name}={shlex.quote(value)} " for name, value in values.items())

    @property
    def own_repository(self) -> bool:
        """Whether releases go elsewhere than to the checkout's `model_repository/`."""
        return self.settings.model_repository.resolve() != ROOT / "model_repository"


def open_shop(data: Path | None, mapping: str | None, items: Path | None = None) -> Shop:
    """The shop of a file, in a home of its own, or the simulated one in the home of the environment.

    Sets `BRAID_HOME` and `BRAID_MODEL_REPOSITORY` for the steps.

    Raises:
        DemoError: a file is not there, or a mapping or items are given without events.
    """
    settings = load_settings()
    if data is None and (mapping or items):
        raise DemoError("a mapping or items are given without the events that they belong to: make demo DATA=FILE")
    if data is None:
        return Shop(
            settings=settings, data=settings.home / "simulated" / "events.parquet", mapping="simulated", simulated=True
        )
    for file in (data, items):
        if file is not None and not file.is_file():
            raise DemoError(f"{file}: {'is a folder; give one file' if file.is_dir() else 'no such file'}")
    stem = re.sub(r"[^a-z0-9]+", "-", data.name.split(".")[0].lower()).strip("-") or "shop"
    home = settings.home / stem
    os.environ["BRAID_HOME"] = str(home)
    os.environ["BRAID_MODEL_REPOSITORY"] = str(home / "model_repository")
    return Shop(
        settings=load_settings(),
        data=data.resolve(),
        mapping=mapping,
        items=items and items.resolve(),
        simulated=False,
    )


@dataclass(slots=True)
class State:
    """What `demo.json` keeps."""

    path: Path
    source: dict[str, Any] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    @staticmethod
    def of(settings: Settings) -> State:
        """The state of the shop in a home; empty for a new one.

        Raises:
            DemoError: the file cannot be read, or does not hold what `save` writes.
        """
        path = settings.home / STATE_FILE
        if not path.exists():
            return State(path)
        try:
            return State(path, **_kept(json.loads(path.read_bytes())))
        except (OSError, ValueError) as error:
            raise DemoError(f"{path} is damaged ({error}); delete it to build the shop again") from None

    def save(self) -> None:
        """Writes the file beside and renames it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".part")
        beside.write_text(json.dumps({"source": self.source, "done": self.done, "told": self.told}, indent=1))
        beside.replace(self.path)


def _kept(content: Any) -> dict[str, Any]:
    """The fields of a state, if a file holds those and nothing else.

    Raises:
        ValueError: it does not.
    """
    kinds = {"source": dict, "done": list, "told": list}
    if not isinstance(content, dict) or content.keys() - kinds:
        raise ValueError(f"expected an object with {', '.join(kinds)}")
    for name, value in content.items():
        if not isinstance(value, kinds[name]):
            raise ValueError(f"{name} is no {'object' if kinds[name] is dict else 'list'}")
    return content


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command. `built` says whether its result is there; a step that depends on one that ran runs again."""

    name: str
    title: str
    arguments: list[str]
    built: Callable[[], bool]


def build(console: Console, shop: Shop) -> None:
    """Runs what is not built yet, in order, and brings the stack up.

    Raises:
        DemoError: a step ended badly, or the home belongs to another file.
    """
    state = State.of(shop.settings)
    _check_source(shop, state)
    _check_machine(shop.settings)
    again = False
    steps = list(_steps(shop))
    for place, step in enumerate(steps, 1):
        label = f"[bold]{place}/{len(steps) + 1}  {step.title}[/bold]"
        if not again and step.name in state.done and step.built():
            console.print(f"{label}  [dim]built already[/dim]")
            continue
        again = True
        console.print(f"{label}  [dim]python {escape(' '.join(step.arguments))}[/dim]")
        if step.name == "import":
            state.source = _source(shop)
        state.done = [name for name in state.done if name != step.name]
        state.save()
        seconds = _run(shop, step.name, step.arguments)
        state.done.append(step.name)
        state.save()
        console.print(f"[dim]     {seconds:.1f} s[/dim]")
    console.print(
        f"[bold]{len(steps) + 1}/{len(steps) + 1}  Start the stack[/bold]  [dim]python -m deploy.embedded up[/dim]"
    )
    _stop_others(console, shop.settings)
    _run(shop, "up", ["-m", "deploy.embedded", "up"])


def live_release(settings: Settings) -> int | None:
    """The release that is live in this shop, if any.

    Raises:
        DemoError: the database cannot be opened.
    """
    with _database(settings) as engine:
        return ReleaseTable(engine).live()


def _steps(shop: Shop) -> Iterator[Step]:
    settings = shop.settings
    if shop.simulated:
        today = datetime.now(timezone.utc).date()
        yield Step(
            name="simulate",
            title="Simulate a shop",
            arguments=["-m", "demo", "simulate", "--out", short(shop.data.parent), "--end", today.isoformat()],
            built=lambda: shop.data.exists() and (shop.data.parent / "truth" / "shop.json").exists(),
        )
    mapping = ["--mapping", shop.mapping] if shop.mapping else []
    items = ["--items", short(shop.items)] if shop.items else []
    yield Step(
        name="import",
        title="Import the events",
        arguments=["-m", "features", "import", short(shop.data), *mapping, *items],
        built=lambda: bool(settings.database_url) or (settings.home / "braid.db").exists(),
    )
    yield Step(
        name="build",
        title="Build the features",
        arguments=["-m", "features", "build"],
        built=lambda: (settings.offline / "events.parquet").exists(),
    )
    yield Step(
        name="train",
        title="Train the model, and measure it beside simple methods",
        arguments=["-m", "training", "train", "--max-minutes", f"{TRAINING_MINUTES:g}"],
        built=lambda: (settings.home / "training").exists(),
    )
    yield Step(
        name="publish",
        title="Publish it as a release",
        arguments=["-m", "training", "publish", "--why", "the demo's first release"],
        built=lambda: live_release(settings) is not None,
    )


def _run(shop: Shop, name: str, arguments: list[str]) -> float:
    begin = time.monotonic()
    code = subprocess.run([sys.executable, *arguments], cwd=ROOT).returncode
    if code:
        raise DemoError(
            f"the step `{name}` ended with exit code {code}; the reason stands above. "
            f"To run it alone: {shop.prefix}.venv/bin/python {shlex.join(arguments)}"
        )
    return time.monotonic() - begin


def _source(shop: Shop) -> dict[str, Any]:
    if shop.simulated:
        return {"simulated": True}
    source = {**_state_of(shop.data), "mapping": shop.mapping}
    if shop.mapping and (file := Path(shop.mapping)).is_file():
        source["mapping_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    if shop.items:
        source["items"] = _state_of(shop.items)
    return source


def _state_of(file: Path) -> dict[str, Any]:
    facts = file.stat()
    return {"path": str(file), "bytes": facts.st_size, "modified_ns": facts.st_mtime_ns}


def _check_source(shop: Shop, state: State) -> None:
    now = _source(shop)
    known = {name: now.get(name) for name in (*state.source, "items")}
    if not state.source or {"items": None} | state.source == known:
        return
    if "import" in state.done or _holds_events(shop.settings):
        raise DemoError(
            f"{short(shop.settings.home)} holds a shop built from another file, another state of it, other items or "
            f"with another mapping ({state.source.get('path', 'simulated')}). Delete {short(shop.settings.home)} to "
            "build anew, or set BRAID_HOME to another folder"
        )


def _holds_events(settings: Settings) -> bool:
    if not settings.database_url and not (settings.home / "braid.db").exists():
        return False
    with _database(settings) as engine:
        return EventLog(engine).last_position() > 0


@contextmanager
def _database(settings: Settings) -> Iterator[Engine]:
    try:
        engine = open_database(settings.log_url)
    except DatabaseError as error:
        raise DemoError(str(error)) from None
    try:
        yield engine
    finally:
        engine.dispose()


def _check_machine(settings: Settings) -> None:
    """What the last step needs is better known before the first."""
    if stack.is_up(settings) or _in_the_way(settings):
        return
    missing = failed(stack.requirements(settings))
    if missing:
        raise DemoError("\n".join(f"{need.name}: {need.found}; {need.remedy}" for need in missing))


def _stop_others(console: Console, settings: Settings) -> None:
    for other in _in_the_way(settings):
        console.print(f"Stopping the stack of {short(other.home)}, which holds the same ports.")
        stack.stop(other)


def _in_the_way(settings: Settings) -> list[Settings]:
    """Shops that a demo built whose stacks hold this one's ports."""
    return [other for other in holding_ports(settings) if (other.home / STATE_FILE).exists()]
