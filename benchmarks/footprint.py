"""Memory of the whole running stack.

    python -m benchmarks.footprint

RSS counts a page in every process that maps it, PSS shares it out among them: the sum of PSS is what the stack takes.
Each program is counted with its children (Triton with its Python stubs). Keeps the figures in benchmarks/results/.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import psutil
from rich.table import Table

from benchmarks import record
from benchmarks.latency import ensure_up
from deploy.embedded import stack
from features.settings import Settings, load_settings
from features.terminal import console

TARGET_BYTES = int(2.5 * 2**30)
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Footprint:
    """A program's memory in bytes, its children included."""

    program: str
    processes: int
    rss_bytes: int
    pss_bytes: int


def footprint(name: str, root: psutil.Process, *, below: bool = True) -> Footprint:
    """Memory of a process, and of everything `below` it."""
    memory = [member.memory_full_info() for member in [root, *(root.children(recursive=True) if below else [])]]
    return Footprint(name, len(memory), sum(entry.rss for entry in memory), sum(entry.pss for entry in memory))


def of_stack(settings: Settings) -> list[Footprint]:
    """Every program of a running stack, supervisord first."""
    programs = [program for program in stack.programs(settings) if program.pid]
    supervisord = psutil.Process(programs[0].pid).parent()
    own = [footprint("supervisord", supervisord, below=False)] if supervisord else []
    return own + [footprint(program.name, psutil.Process(program.pid)) for program in programs]


def main() -> None:
    """Measures and shows."""
    settings = load_settings()
    try:
        ensure_up(settings)
    except stack.StackError as error:
        sys.exit(str(error))
    if not stack.is_up(settings):
        sys.exit(f"The gateway at {settings.gateway_address} was not started by `make up`: stop it, then try again")
    measured = of_stack(settings)
    table = Table("MiB", "processes", "RSS", "PSS")
    for entry in measured:
        row = (entry.processes, entry.rss_bytes // MIB, entry.pss_bytes // MIB)
        table.add_row(entry.program, *(str(figure) for figure in row))
    total = sum(entry.pss_bytes for entry in measured)
    table.add_row("whole stack", "", "", str(total // MIB))
    console.print(table)
    verdict = "within" if total <= TARGET_BYTES else "above"
    console.print(f"The stack is {verdict} the target of {TARGET_BYTES // MIB} MiB: {total // MIB} MiB.")
    figures = {entry.program: {"rss_bytes": entry.rss_bytes, "pss_bytes": entry.pss_bytes} for entry in measured}
    console.print(f"{record.write('footprint', {'programs': figures, 'pss_bytes': total})}")


if __name__ == "__main__":
    main()
