"""The command line of the feature side: `python -m features COMMAND`; settings from `BRAID_…` variables.

An error that a person can put right ends in one line and exit code 2.
"""

from __future__ import annotations

import json
import signal
import threading
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from features.answers.answer_report import Dimension
from features.database.engine import open_database
from features.settings import load_settings
from features.terminal import clear_errors, console, stderr

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


def _stop_signal() -> threading.Event:
    """Set by SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


@app.command("import")
def import_command(
    file: Annotated[
        Path, typer.Argument(help="Events: CSV (also .gz), Parquet, Excel or JSON lines.", show_default=False)
    ],
    mapping: Annotated[
        str | None, typer.Option(help="Name of a ready mapping or a YAML file; guessed from the columns if not given.")
    ] = None,
    items: Annotated[list[Path] | None, typer.Option(help="File of items; may be given several times.")] = None,
    users: Annotated[Path | None, typer.Option(help="File of users.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Where the report goes as JSON; default: BRAID_HOME/imports.")
    ] = None,
) -> None:
    """Reads a shop's files into the event log, the catalogue and the users."""
    from features.importing.importer import import_files

    try:
        with clear_errors():
            import_files(
                load_settings(), file, mapping=mapping, items=items or (), users=users, report=report, console=console
            ).show(console)
    except KeyboardInterrupt:
        stderr.print("stopped; what was written stays, and the same command writes the rest")
        raise typer.Exit(130) from None


@app.command()
def build() -> None:
    """Builds the offline features and the current online rows from the log."""
    from features.offline.build import build as build_features

    with clear_errors():
        build_features(load_settings())


@app.command()
def apply() -> None:
    """Registers the feature definitions of every kept release with Feast; what is lost of them is written anew."""
    from features.releases.lost_declarations import declare_lost
    from features.store import apply as apply_definitions

    settings = load_settings()
    with clear_errors():
        lost = declare_lost(settings)
        apply_definitions(settings)
    for number in lost:
        console.print(f"release {number} is declared again; `python -m features materialize` makes its vectors")


@app.command()
def stream() -> None:
    """Follows the log and keeps the online rows current until SIGTERM or SIGINT."""
    from features.stream.worker import run

    with clear_errors():
        run(load_settings(), _stop_signal())


@app.command()
def materialize(
    release: Annotated[int | None, typer.Option(help="Release to encode for; the live one if not given.")] = None,
    every: Annotated[
        float | None, typer.Option(min=0.1, help="Stay until SIGTERM and run again after so many minutes.")
    ] = None,
) -> None:
    """Encodes the histories of shoppers with new events and writes their long-term vectors online."""
    from features.online.materialize import materialize as materialize_vectors
    from features.online.materialize import materialize_every

    with clear_errors():
        if every is None:
            materialize_vectors(load_settings(), release)
        else:
            materialize_every(load_settings(), release, 60 * every, _stop_signal())


@app.command("delete-user")
def delete_user(
    person: Annotated[str, typer.Argument(metavar="USER_ID", help="Whom to erase.", show_default=False)],
    session: Annotated[
        bool, typer.Option("--session", help="The id is that of a session in which nobody signed in.")
    ] = False,
) -> None:
    """Erases a person everywhere and for good; run again, it goes on with what was left."""
    from features.erasure.erase import erase

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with clear_errors():
        with Progress(*columns, console=stderr, transient=True) as progress:
            task = progress.add_task("looking for the person", total=None)
            erase(
                load_settings(),
                user_id="" if session else person,
                session_id=person if session else "",
                note=lambda part: progress.update(task, description=f"erasing from {part}"),
            )
        console.print("Erased.")


@app.command()
def report(
    since: Annotated[
        datetime | None, typer.Option(help="Start of the window, UTC; default: 7 days before its end.")
    ] = None,
    until: Annotated[datetime | None, typer.Option(help="End of the window, UTC; default: now.")] = None,
    by: Annotated[Dimension | None, typer.Option(help="One dimension alone; default: each of the four.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """How answers did: impressions, click-through, conversion and coverage by release, placement, tier and slot."""
    from features.answers.answer_report import DIMENSIONS
    from features.answers.answer_report import report as answer_report

    end = until.replace(tzinfo=timezone.utc) if until else datetime.now(timezone.utc)
    start = since.replace(tzinfo=timezone.utc) if since else end - timedelta(days=7)
    if start >= end:
        raise typer.BadParameter(
            f"{start:%Y-%m-%d %H:%M} is not before --until {end:%Y-%m-%d %H:%M}", param_hint="--since"
        )
    with clear_errors():
        engine = open_database(load_settings().log_url)
        found = answer_report(
            engine, round(1000 * start.timestamp()), round(1000 * end.timestamp()), [by] if by else DIMENSIONS
        )
        engine.dispose()
    if as_json:
        print(json.dumps(asdict(found)))
        return
    if not found.lines:
        console.print(f"No answers were recorded from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC.")
        return
    console.print(found.table())
    for experiment in found.experiments:
        console.print(experiment.table())
    if found.unknown_token_events:
        console.print(f"{found.unknown_token_events:,} events carry a token that no recorded answer has.")


@app.command()
def skew(
    sample: Annotated[int, typer.Option(min=1, help="Answers that are compared, drawn at random.")] = 1000,
    tolerance: Annotated[float, typer.Option(min=0, help="Largest difference that is none, relative above 1.")] = 1e-4,
) -> None:
    """Makes recorded answers again from the offline features; exit code 1 where the model saw something else."""
    from features.answers.skew import skew as find_skew

    with clear_errors():
        found = find_skew(load_settings(), sample, tolerance)
    for reason, count in found.left_out.items():
        console.print(f"{count:,} answers are not compared: {reason}")
    if not found.skewed:
        console.print(f"no skew in {found.answers:,} answers")
        return
    console.print(found.table())
    raise typer.Exit(1)


@app.command()
def status() -> None:
    """Shows what the databases hold and how far their followers have come."""
    from features.status import status as read_status

    table = Table.grid(padding=(0, 2))
    with clear_errors():
        for name, value in read_status(load_settings()).items():
            table.add_row(name, value)
        console.print(table)


if __name__ == "__main__":
    app()
