"""`python -m server keys`: makes, lists and revokes API keys; the gateways take a change in within half a second.

An error that a person can put right ends in one line and exit code 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Annotated

import typer
from rich.table import Table

from features.database.engine import open_database
from features.settings import load_settings
from features.terminal import clear_errors, console, fail
from server.access.key_table import KeyTable
from server.access.scopes import Scope

MAX_NAME_CHARS = 128
keys = typer.Typer(no_args_is_help=True, help="API keys: who may call the gateway, and what.")


@contextmanager
def _table() -> Iterator[KeyTable]:
    """The table of the shop that the environment names."""
    with clear_errors():
        engine = open_database(load_settings().log_url)
        yield KeyTable(engine)
        engine.dispose()


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, for people.", show_default=False)],
    scope: Annotated[list[Scope], typer.Option(help="What it is for; may be given several times.")],
    calls_per_s: Annotated[
        float, typer.Option(min=0, help="Calls a second, and messages of a stream; 0: no limit.")
    ] = 0,
    burst: Annotated[
        int, typer.Option(min=0, help="Calls at once before that holds; 0: as many as in one second.")
    ] = 0,
) -> None:
    """Makes a key and prints its secret, once; nobody can read it again."""
    if not 0 < len(name) <= MAX_NAME_CHARS:
        fail(f"NAME has {len(name)} characters, 1 to {MAX_NAME_CHARS} are allowed")
    if burst and not calls_per_s:
        fail("--burst says nothing without --calls-per-s")
    with _table() as table:
        key_id, secret = table.create(name, scope, calls_per_s=calls_per_s, burst=burst or math.ceil(calls_per_s))
    typer.echo(f"key {key_id}; its secret is told this once:", err=True)
    typer.echo(secret)


@keys.command("list")
def list_keys() -> None:
    """Lists every key, revoked ones too; without secrets, which are not stored."""
    shown = Table("key", "name", "scopes", "calls/s", "burst", "made", "revoked")
    with _table() as table:
        for key in table.all():
            shown.add_row(
                key.key_id,
                key.name,
                ", ".join(sorted(scope.value for scope in key.scopes)),
                f"{key.calls_per_s:g}" if key.calls_per_s else "no limit",
                str(key.burst) if key.calls_per_s else "",
                _moment(key.created_time_ms),
                _moment(key.revoked_time_ms),
            )
    console.print(shown)


@keys.command()
def revoke(key_id: Annotated[str, typer.Argument(help="As `list` shows it.", show_default=False)]) -> None:
    """Ends a key. The last one that goes leaves the gateway closed: it asks for keys ever after."""
    with _table() as table:
        ended = table.revoke(key_id)
    if not ended:
        fail(f"no key {key_id!r} is in force; `python -m server keys list` shows them")
    typer.echo(f"key {key_id} is revoked")


def _moment(time_ms: int | None) -> str:
    return "" if time_ms is None else f"{datetime.fromtimestamp(time_ms / 1000, timezone.utc):%Y-%m-%d %H:%M} UTC"
