"""The command line of the model side: `python -m training COMMAND`; settings from `BRAID_…` variables.

An error that a person can put right ends in one line and exit code 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from features.database.engine import DatabaseError, open_database
from features.release import ReleaseError
from features.releases import ReleaseTable
from features.settings import Settings, load_settings
from training.config import Config
from training.dataset import DataError
from training.evaluate import MomentChoice, Protocol
from training.gate import GateError
from training.report import Figures, figures_table

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
release_app = typer.Typer(no_args_is_help=True, help="The release table.")
app.add_typer(release_app, name="release")
console = Console()
errors = Console(stderr=True, soft_wrap=True, highlight=False)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turns the errors that a person can put right into one line and exit code 2."""
    try:
        yield
    except (DataError, ReleaseError, GateError, DatabaseError, ValueError) as error:
        errors.print(f"[red]error:[/red] {error}", markup=True)
        raise typer.Exit(2) from None


RunFolder = Annotated[Path | None, typer.Option(help="Folder of the run; default: training/ in the shop's home.")]
TestFrom = Annotated[str | None, typer.Option(help="Date (YYYY-MM-DD) from which on nothing is learned.")]
MomentsOption = Annotated[MomentChoice, typer.Option(help="Which moments of a shopper are tested.")]
MinItemMoments = Annotated[int, typer.Option(help="Rank only items that so many moments before the test hold.")]
KnownShoppers = Annotated[
    bool, typer.Option("--known-shoppers", help="Test only shoppers with events before the test begins.")
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]


@app.command()
def train(
    test_from: TestFrom = None,
    moments: MomentsOption = MomentChoice.EVERY,
    min_item_moments: MinItemMoments = 0,
    known_shoppers: KnownShoppers = False,
    epochs: Annotated[int | None, typer.Option(help="Epochs at most.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="No epoch is begun after this.")] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds and threads give equal models.")] = 0,
    threads: Threads = 2,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint of an interrupted run.")] = False,
    run: RunFolder = None,
) -> None:
    """Trains the fusion model on the offline features and measures it beside the baselines."""
    from training.pipeline import train as train_model

    torch.set_num_threads(threads)
    settings, usual = load_settings(), Config()
    with clear_errors():
        chosen = replace(
            usual.fit,
            seed=seed,
            epochs=usual.fit.epochs if epochs is None else epochs,
            max_minutes=usual.fit.max_minutes if max_minutes is None else max_minutes,
        )
        trained = train_model(
            settings.offline,
            _run_folder(settings, run),
            replace(usual, fit=chosen),
            Protocol(moments=moments, min_item_moments=min_item_moments, known_shoppers=known_shoppers),
            test_from_ms=_date_ms(test_from),
            resume=resume,
        )
        _print_figures(trained.report["variants"] | trained.report["baselines"])


@app.command()
def evaluate(
    test_from: TestFrom = None,
    moments: MomentsOption = MomentChoice.EVERY,
    min_item_moments: MinItemMoments = 0,
    known_shoppers: KnownShoppers = False,
    threads: Threads = 2,
    run: RunFolder = None,
) -> None:
    """Measures a trained model again; writes evaluation.md, evaluation.json and predictions.parquet into the run."""
    from training.pipeline import evaluate as evaluate_model
    from training.trained import load_trained

    torch.set_num_threads(threads)
    settings = load_settings()
    with clear_errors():
        folder = _run_folder(settings, run)
        figures = evaluate_model(
            settings.offline,
            folder,
            load_trained(folder),
            Protocol(moments=moments, min_item_moments=min_item_moments, known_shoppers=known_shoppers),
            test_from_ms=_date_ms(test_from),
        )
        _print_figures(figures)


@app.command()
def encode(
    release_dir: Annotated[Path, typer.Option(help="Folder of the release's fusion model.")],
    histories: Annotated[Path, typer.Option(help="Parquet: shopper, item_ids, event_types, event_times_ms.")],
    vectors: Annotated[Path, typer.Option(help="Parquet to write: shopper, vector.")],
    threads: Threads = 2,
) -> None:
    """Encodes histories into long-term vectors with the encoder of a release."""
    from training.encode import encode as encode_histories

    torch.set_num_threads(threads)
    with clear_errors():
        encode_histories(release_dir, histories, vectors)


@app.command()
def publish(
    run: RunFolder = None,
    why: Annotated[str, typer.Option(help="Kept in the release table.")] = "published",
) -> None:
    """Makes a release of the trained model: gate, features, vectors, live."""
    from training.publish import publish as publish_model
    from training.trained import load_trained

    settings = load_settings()
    with clear_errors():
        number = publish_model(
            settings, load_trained(_run_folder(settings, run)), why=why, note=lambda line: console.print(line)
        )
        console.print(f"published release {number}")


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


def _date_ms(value: str | None) -> int | None:
    if value is None:
        return None
    try:
        return int(datetime.fromisoformat(value).replace(tzinfo=timezone.utc).timestamp() * 1000)
    except ValueError:
        raise ValueError(f"--test-from {value!r} is no date; example: 2011-11-10") from None


def _run_folder(settings: Settings, run: Path | None) -> Path:
    return run or settings.home / "training"


def _print_figures(figures: Figures) -> None:
    console.print(figures_table(figures, "next purchases, ranked over all items"))


if __name__ == "__main__":
    app()
