"""`python -m demo simulate` writes a shop; `python -m demo run` goes from raw data to live recommendations."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from features.terminal import WIDTH

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
console = Console(width=WIDTH)


@app.callback()
def main() -> None:
    """A simulated shop, and the way from raw data to live recommendations."""


@app.command()
def simulate(
    out: Annotated[Path, typer.Option(help="folder to write to")],
    shoppers: Annotated[int, typer.Option()] = 4_000,
    items: Annotated[int, typer.Option()] = 2_000,
    days: Annotated[int, typer.Option()] = 120,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    end: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="the day after the last one")] = datetime(
        2026, 6, 1
    ),
    intents: Annotated[
        bool, typer.Option(help="without: the control shop, where visits follow lasting taste alone")
    ] = True,
    noise: Annotated[bool, typer.Option(help="robots, repeated rows, broken rows")] = True,
) -> None:
    """Writes a simulated shop as Parquet, and the truth behind it."""
    from polars.exceptions import PolarsError

    from demo.simulate import ShopPlan
    from demo.simulate import simulate as write_shop

    try:
        plan = ShopPlan(
            shoppers=shoppers, items=items, days=days, seed=seed, end=end.date(), intents=intents, noise=noise
        )
    except ValueError as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(2) from None
    begin = time.perf_counter()
    try:
        counts = write_shop(plan, out)
    except (OSError, PolarsError) as error:  # Polars tells of a full disk in an error of its own
        message = f"--out {out}: the shop cannot be written: {error}; free some of the disk, or name another folder"
        console.print(f"[red]{escape(message)}[/red]", soft_wrap=True)
        raise typer.Exit(2) from None
    seconds = time.perf_counter() - begin
    console.print(
        f"simulated {counts['events']:,} events of {counts['shoppers']:,} shoppers on {counts['items']:,} items "
        f"in {seconds:.1f} s: {out}"
    )


@app.command()
def run(
    data: Annotated[Path | None, typer.Option(help="a file of events; without, a shop is simulated")] = None,
    mapping: Annotated[str | None, typer.Option(help="a ready mapping or a YAML file; guessed if not given")] = None,
    items: Annotated[Path | None, typer.Option(help="a file of items; the mapping's beside the events if none")] = None,
) -> None:
    """Raw data to live recommendations, and a story of what they do."""
    from demo.pipeline import DemoError
    from demo.run import run as run_demo

    try:
        run_demo(console, data, mapping, items)
    except DemoError as error:
        console.print(f"[red]demo: {escape(str(error))}[/red]", soft_wrap=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
