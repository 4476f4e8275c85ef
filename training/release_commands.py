"""`python -m training release COMMAND`: the release table."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated

import typer
from rich.table import Table

from features.database.engine import open_database
from features.release import ReleaseError
from features.releases import ReleaseTable
from features.settings import load_settings
from training.terminal import clear_errors, console

release_app = typer.Typer(no_args_is_help=True, help="The release table.")


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
        rows = [row for row in table.all() if row.release == release]
        if not rows:
            raise ReleaseError(f"there is no release {release}; see `python -m training release list`")
        console.print_json(data=rows[0].manifest)
        for change in table.changes(release):
            moment = datetime.fromtimestamp(change.changed_time_ms / 1000, tz=timezone.utc)
            console.print(f"{moment:%Y-%m-%d %H:%M:%S} {change.to_state} by {change.who}: {change.why}")


@release_app.command("promote")
def promote_release(
    release: int, why: Annotated[str, typer.Option(help="Kept in the release table.")] = "promoted"
) -> None:
    """Makes a release live; the gateways follow within half a second."""
    with clear_errors():
        ReleaseTable(open_database(load_settings().log_url)).change_state(release, "live", "training", why)
        console.print(f"release {release} is live")
