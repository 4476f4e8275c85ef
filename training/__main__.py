"""The command line of the model side: `python -m training COMMAND`; settings from `BRAID_…` variables.

An error that a person can put right ends in one line and exit code 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from features.settings import Settings, load_settings
from features.terminal import console, stderr
from training.config import Config, FitConfig
from training.configuration_file import read_configuration
from training.evaluate import MomentChoice, Protocol
from training.release_commands import release_app
from training.report import Figures, figures_table
from training.search_space import Sampler
from training.terminal import clear_errors

if TYPE_CHECKING:  # it brings torch, which most commands have no use for
    from training.trained import TrainedModel

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(release_app, name="release")


RunFolder = Annotated[Path | None, typer.Option(help="Folder of the run; default: training/ in the shop's home.")]
TestFrom = Annotated[str | None, typer.Option(help="Date (YYYY-MM-DD, UTC) from which on nothing is learned.")]
MomentsOption = Annotated[MomentChoice, typer.Option(help="Which moments of a shopper are tested.")]
MinItemMoments = Annotated[int, typer.Option(help="Rank only items that so many moments before the test hold.")]
KnownShoppers = Annotated[
    bool, typer.Option("--known-shoppers", help="Test only shoppers with events before the test begins.")
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
_MINUTE = "%Y-%m-%d %H:%M UTC"


@app.command()
def train(
    test_from: TestFrom = None,
    moments: MomentsOption = MomentChoice.EVERY,
    min_item_moments: MinItemMoments = 0,
    known_shoppers: KnownShoppers = False,
    configuration: Annotated[Path | None, typer.Option(help="JSON file of every setting, as `tune` writes it.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs at most.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="No epoch is begun after this.")] = None,
    seed: Annotated[int | None, typer.Option(help="Equal seeds and threads give equal models.")] = None,
    threads: Threads = 2,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint of an interrupted run.")] = False,
    run: RunFolder = None,
) -> None:
    """Trains the fusion model on the offline features and measures it beside the baselines."""
    import torch

    from training.pipeline import train as train_model

    torch.set_num_threads(threads)
    settings = load_settings()
    folder = _run_folder(settings, run)
    with clear_errors(), _told_how_to_go_on(folder):
        config = Config() if configuration is None else read_configuration(configuration)
        given = {"seed": seed, "epochs": epochs, "max_minutes": max_minutes}
        chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        trained = train_model(
            settings.offline,
            folder,
            replace(config, fit=replace(config.fit, **chosen)),
            Protocol(moments=moments, min_item_moments=min_item_moments, known_shoppers=known_shoppers),
            test_from_ms=_date_ms(test_from),
            resume=resume,
        )
        _print_figures(trained, trained.report["variants"] | trained.report["baselines"])


@app.command()
def tune(
    trials: Annotated[int, typer.Option(min=1, help="Configurations to try, in all workers together.")] = 40,
    minutes: Annotated[float, typer.Option(min=0, help="No trial is begun after this.")] = 60,
    sampler: Annotated[Sampler, typer.Option(help="Draw blindly, or where good ones lie.")] = Sampler.TPE,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the trials.")] = 1,
    study: Annotated[str | None, typer.Option(help="Goes on where it stands; default: named for the data.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of a trial at most.")] = FitConfig().epochs,
    data: Annotated[Path | None, typer.Option(help="Folder of the offline files; default: the shop's.")] = None,
    test_from: TestFrom = None,
    moments: MomentsOption = MomentChoice.EVERY,
    min_item_moments: MinItemMoments = 0,
    known_shoppers: KnownShoppers = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each worker.")] = 2,
) -> None:
    """Searches for a better configuration on the validation moments; `train --configuration FILE` takes the best."""
    from training.tune import Budget, configuration_path, found_line, found_table
    from training.tune import tune as search

    settings = load_settings()
    with clear_errors():
        found = search(
            settings,
            data or settings.offline,
            Budget(trials=trials, minutes=minutes, epochs=epochs, workers=workers, threads=threads),
            Protocol(moments=moments, min_item_moments=min_item_moments, known_shoppers=known_shoppers),
            sampler=sampler,
            study_name=study,
            test_from_ms=_date_ms(test_from),
        )
        console.print(found_line(found), soft_wrap=True)
        console.print(found_table(found))
        if found.failed:
            console.print(f"{found.failed} trials failed or were killed; see {settings.logs}/tune-*.log")
        written = configuration_path(settings)
        console.print(f"the best, trial {found.best[0].number}, is {written}; use it with", soft_wrap=True)
        console.print(f"    python -m training train --configuration {written}", soft_wrap=True)


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
    import torch

    from training.pipeline import evaluate as evaluate_model
    from training.trained import load_trained

    torch.set_num_threads(threads)
    settings = load_settings()
    with clear_errors():
        folder = _run_folder(settings, run)
        trained = load_trained(folder)
        figures = evaluate_model(
            settings.offline,
            folder,
            trained,
            Protocol(moments=moments, min_item_moments=min_item_moments, known_shoppers=known_shoppers),
            test_from_ms=_date_ms(test_from),
        )
        _print_figures(trained, figures)


@app.command()
def publish(
    run: RunFolder = None,
    why: Annotated[str, typer.Option(help="Kept in the release table.")] = "published",
    although_worse: Annotated[
        str, typer.Option(help="Why it is to serve unmeasured, whatever the live release and the baselines reach.")
    ] = "",
) -> None:
    """Makes a release of the trained model: gates, features, vectors, live."""
    from training.publish import publish as publish_model
    from training.trained import ended_time, load_trained, unfinished_time

    settings = load_settings()
    with clear_errors():
        folder = _run_folder(settings, run)
        trained = load_trained(folder)
        console.print(f"publishing the run that ended at {ended_time(folder):{_MINUTE}}", soft_wrap=True)
        if kept := unfinished_time(folder):
            console.print(
                f"a later run was not finished, its last whole epoch ended at {kept:{_MINUTE}}: it is not what is "
                "published; `python -m training train --resume` goes on with it",
                style="yellow",
                soft_wrap=True,
            )
        number = publish_model(
            settings,
            trained,
            why=why,
            note=console.print,
            although_worse=although_worse,
        )
        console.print(f"published release {number}")


@app.command()
def update(
    test_from: TestFrom = None,
    why: Annotated[str, typer.Option(help="Kept in the release table.")] = "updated",
    threads: Threads = 2,
) -> None:
    """Goes on with the live release on what happened since, and publishes: one line for cron."""
    import torch

    from training.update import update as update_release

    torch.set_num_threads(threads)
    with clear_errors():
        number, trained = update_release(load_settings(), test_from_ms=_date_ms(test_from), why=why, note=console.print)
        _print_figures(trained, trained.report["variants"] | trained.report["baselines"])
        console.print(f"published release {number}")


def _date_ms(value: str | None) -> int | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"--test-from {value!r} is no date; example: 2011-11-10") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp() * 1000)


def _run_folder(settings: Settings, run: Path | None) -> Path:
    return run or settings.home / "training"


@contextmanager
def _told_how_to_go_on(folder: Path) -> Iterator[None]:
    """Where Ctrl-C stops a run: one line that says what is kept of it, and exit code 130."""
    from training.trained import unfinished_time

    try:
        yield
    except KeyboardInterrupt:
        kept = unfinished_time(folder)
        stderr.print(
            f"stopped; the same command with --resume goes on after the epoch that ended at {kept:{_MINUTE}}"
            if kept
            else "stopped before the first epoch ended: nothing of this run is kept, train again without --resume"
        )
        raise typer.Exit(130) from None


def _print_figures(trained: TrainedModel, figures: Figures) -> None:
    of = trained.report["data_window"].get("targets", "purchases")
    console.print(figures_table(figures, f"next {of}, ranked over all items"))
    if of == "events":
        console.print("There are too few purchases to learn from and to measure on: every event counts as one.")


if __name__ == "__main__":
    app()
