"""The whole stack on this machine: Triton, gateway and stream worker.

python -m deploy.embedded up | down | status | check
"""

from __future__ import annotations

import sys
import time
from typing import NoReturn

import typer
from rich.table import Table
from rich.text import Text

from deploy.embedded import neighbours, newer_code, processes, stack
from deploy.embedded.checks import failed
from features.settings import load_settings
from features.terminal import console, stderr

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
MIB = 1 << 20


@app.command()
def up(within_s: float = typer.Option(120.0, "--within", help="Seconds to wait until the gateway serves.")) -> None:
    """Starts the stack and waits until the gateway serves."""
    settings = load_settings()
    started = time.monotonic()
    begun = False
    try:
        begun = stack.start(settings)
        if not begun and stack.health(settings) == "SERVING":
            console.print(f"Already up: the gateway serves at {settings.gateway_address}. `make status` shows more.")
            for line in newer_code.told(stack.programs(settings)):
                console.print(line, soft_wrap=True)
            return
        for change in stack.wait_until_serving(settings, within_s):
            console.print(f"{time.monotonic() - started:6.1f} s  {change}")
    except stack.ProgramKeepsEnding as error:
        if begun:
            stack.stop(settings)  # nothing half up is left behind
        _fail(str(error))
    except stack.StackError as error:
        _fail("\n".join([str(error), *neighbours.told(settings)]))
    console.print(f"Up: the gateway serves at {settings.gateway_address}. Logs: {settings.logs}. Stop: make down")


@app.command()
def down() -> None:
    """Stops this shop's stack and waits until every process is gone."""
    settings = load_settings()
    try:
        was_up = stack.stop(settings)
    except stack.StackError as error:
        _fail(str(error))
    console.print("Down." if was_up else "It was not up.")
    for line in [] if was_up else neighbours.told(settings):
        console.print(line, soft_wrap=True)


@app.command()
def status() -> None:
    """Shows the programs, their memory and the gateway's health. Exit code 1 unless it serves."""
    settings = load_settings()
    try:
        programs = stack.programs(settings)
    except stack.StackError as error:
        _fail(str(error))
    if not programs and (left := processes.left_running(settings)):
        _fail(f"The supervisor is gone, {len(left)} of its processes still run; `make up` or `make down` ends them.")
    if not programs:
        _fail("\n".join(["Down. Start it with `make up`.", *neighbours.told(settings)]))
    table = Table("program", "state", "pid", "for", "memory")
    for program in programs:
        memory = f"{processes.memory_bytes(program.pid) / MIB:.0f} MiB" if program.pid else ""
        age = f"{time.time() - program.since:.0f} s"
        table.add_row(program.name, program.state, str(program.pid or ""), age, memory)
    console.print(table)
    health = stack.health(settings)
    console.print(f"gateway {settings.gateway_address}: {health}; logs in {settings.logs}")
    for line in newer_code.told(programs):
        console.print(line, soft_wrap=True)
    sys.exit(health != "SERVING")


@app.command()
def check() -> None:
    """Shows what the embedded profile needs of this machine, and the remedy for what is missing."""
    settings = load_settings()
    if stack.is_up(settings):
        console.print("The stack is up, so its ports are taken by itself; `make down` first to check them.")
        return
    checks = stack.requirements(settings)
    table = Table("need", "found", "", "remedy")
    for need in checks:
        said = Text("ok", style="green") if need.ok else Text("no", style="red")
        table.add_row(need.name, need.found, said, "" if need.ok else need.remedy)
    console.print(table)
    sys.exit(bool(failed(checks)))


def _fail(message: str) -> NoReturn:
    stderr.print(message)
    sys.exit(1)


if __name__ == "__main__":
    app()
