"""`python -m training release COMMAND`: the release table."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated

import typer
from rich.table import Table

from features.database.engine import open_database
from features.online.materialize import missing_vectors
from features.releases.release import read_placed
from features.releases.release_table import ReleaseTable, who
from features.settings import load_settings
from features.terminal import console
from training.terminal import clear_errors
from training.traffic_commands import traffic_app

Why = Annotated[str, typer.Option(help="Kept in the release table.")]

release_app = typer.Typer(no_args_is_help=True, help="The release table.")
release_app.add_typer(traffic_app, name="traffic")


@release_app.command("list")
def list_releases() -> None:
    """Every release and its state."""
    with clear_errors():
        table = Table("release", "state", "created", "items", "NDCG@10")
        for row in ReleaseTable(open_database(load_settings().log_url)).all():
            figure = row.manifest.get("metrics", {}).get("ndcg@10")
            table.add_row(
                str(row.release),
                row.state,
                row.manifest["created_time"],
                str(row.manifest["item_count"]),
                "" if figure is None else f"{figure:.4f}",
            )
        console.print(table)


@release_app.command("show")
def show_release(release: int) -> None:
    """A release's manifest and the changes of its state."""
    with clear_errors():
        table = ReleaseTable(open_database(load_settings().log_url))
        console.print_json(data=table.of(release).manifest)
        for change in table.changes(release):
            moment = datetime.fromtimestamp(change.changed_time_ms / 1000, tz=timezone.utc)
            console.print(f"{moment:%Y-%m-%d %H:%M:%S} {change.to_state} by {change.who}: {change.why}")


@release_app.command("load")
def load_release(release: int, why: Why = "held ready") -> None:
    """Has the gateways hold a release ready beside the live one, so that its promotion loads nothing."""
    with clear_errors():
        _table_if_whole(release).load(release, who(), why)
        console.print(f"release {release} is to be held ready; `training release show {release}` says if it is refused")


@release_app.command("promote")
def promote_release(release: int, why: Why = "promoted") -> None:
    """Makes a release live, if its files are whole; the gateways follow within half a second."""
    with clear_errors():
        _table_if_whole(release).change_state(release, "live", who(), why)
        console.print(f"release {release} is live")
        _tell_of_vectors(release)


@release_app.command("rollback")
def roll_back(why: Why = "rolled back") -> None:
    """Brings back the release that was live before, which the gateways have kept loaded; this one counts as failed."""
    with clear_errors():
        live, failed = ReleaseTable(open_database(load_settings().log_url)).rollback(who(), why)
        console.print(f"release {live} is live again, release {failed} has failed")
        _tell_of_vectors(live)


@release_app.command("retire")
def retire_release(release: int, why: Why = "retired") -> None:
    """Takes a release that is not live out of the running: nothing is rolled back to it any more."""
    with clear_errors():
        ReleaseTable(open_database(load_settings().log_url)).retire(release, who(), why)
        console.print(f"release {release} is retired")


@release_app.command("clean")
def clean_releases() -> None:
    """Removes releases that are no longer needed, with their files, views and vectors; each publish does it as well."""
    from features.releases.housekeeping import remove_old_releases

    with clear_errors():
        removed = remove_old_releases(load_settings(), note=console.print)
        console.print(f"{len(removed)} releases were no longer needed")


def _tell_of_vectors(live: int) -> None:
    """Says what is to be done where the online store has no long-term vectors of the release that is live now."""
    settings = load_settings()
    engine = open_database(settings.log_url)
    if missing := missing_vectors(settings, engine, live):
        console.print(f"long-term vectors of release {live}: {missing}", style="yellow", soft_wrap=True)
    engine.dispose()


def _table_if_whole(release: int) -> ReleaseTable:
    """The release table, once it has the release and the files of both its models are whole.

    Raises:
        ReleaseError: there is none of this number, or a file is missing or changed.
    """
    settings = load_settings()
    table = ReleaseTable(open_database(settings.log_url))
    table.of(release)
    read_placed(settings.model_repository, release)
    return table
