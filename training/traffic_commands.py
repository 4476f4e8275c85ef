"""`python -m training release traffic [COMMAND]`: who is answered by which release, and how that goes."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated

import typer
from rich.table import Table
from sqlalchemy import Engine

from features.database.engine import open_database
from features.releases.release_table import who
from features.settings import load_settings
from features.terminal import console
from features.traffic.experiment_report import experiment_report
from features.traffic.shadow_statistics import disagreements
from features.traffic.split import Arm, CanaryPlan, Split, Wanted
from features.traffic.traffic_table import TrafficTable
from training.terminal import clear_errors

Experiment = Annotated[str, typer.Argument(help="Name; another name deals the shoppers anew.", show_default=False)]
Placement = Annotated[str, typer.Option(help="Where; default: every placement without a split of its own.")]
Shadow = Annotated[int | None, typer.Option(help="A release that is asked beside, and whose answers nobody sees.")]
Why = Annotated[str, typer.Option(help="Kept with the change.")]

traffic_app = typer.Typer(help="Shares of the traffic, shadows and canaries.")


@traffic_app.callback(invoke_without_command=True)
def show(context: typer.Context) -> None:
    """Without a command: the splits that hold, their arms side by side, their shadows, and the newest changes."""
    if context.invoked_subcommand is not None:
        return
    with clear_errors():
        engine = open_database(load_settings().log_url)
        table = TrafficTable(engine)
        splits = table.splits()
        if not splits:
            console.print("The live release answers all.")
        for split in splits:
            console.print(_said(split))
            if split.arms:
                console.print(experiment_report(engine, split.experiment, split.since_ms).table())
        _show_shadows(engine, {split.experiment for split in splits if split.shadow is not None})
        for change in table.changes(limit=20):
            moment = datetime.fromtimestamp(change.changed_time_ms / 1000, tz=timezone.utc)
            console.print(
                f"{moment:%Y-%m-%d %H:%M:%S} {change.experiment} {change.outcome} by {change.who}: {change.why}"
            )


@traffic_app.command("set")
def set_arms(
    experiment: Experiment,
    arm: Annotated[list[str], typer.Option(help="RELEASE=PERCENT, the control first; once for each.")],
    placement: Placement = "",
    shadow: Shadow = None,
    why: Why = "compared",
) -> None:
    """Splits the shoppers between releases."""
    with clear_errors():
        arms = tuple(_arm(text) for text in arm)
        _set(Wanted(placement=placement, experiment=experiment, arms=arms, shadow=shadow), why)


@traffic_app.command("canary")
def set_canary(
    experiment: Experiment,
    release: Annotated[int, typer.Argument(help="That is to take over.", show_default=False)],
    steps: Annotated[str, typer.Option(help="Percent of the shoppers in each step.")] = "1,5,25,50",
    step_minutes: Annotated[float, typer.Option(help="A step takes at least as long.")] = 60.0,
    placement: Placement = "",
    shadow: Shadow = None,
    why: Why = "to take over",
) -> None:
    """Has a release take over from the live one by steps, or rolls it back where a guardrail says so."""
    with clear_errors():
        plan = CanaryPlan(release=release, steps=_steps(steps), step_minutes=step_minutes)
        _set(Wanted(placement=placement, experiment=experiment, canary=plan, shadow=shadow), why)


@traffic_app.command("shadow")
def set_shadow(
    experiment: Experiment,
    release: Annotated[int, typer.Argument(help="That is asked beside the live one.", show_default=False)],
    placement: Placement = "",
    why: Why = "watched",
) -> None:
    """Copies requests to a release whose answers nobody sees."""
    with clear_errors():
        _set(Wanted(placement=placement, experiment=experiment, shadow=release), why)


@traffic_app.command("end")
def end(placement: Placement = "", why: Why = "ended") -> None:
    """Ends a placement's split: the live release answers all there."""
    with clear_errors():
        split = TrafficTable(open_database(load_settings().log_url)).end(placement, who(), why)
        console.print(f"experiment {split.experiment} has ended; the live release answers all")


def _set(wanted: Wanted, why: str) -> None:
    split = TrafficTable(open_database(load_settings().log_url)).set(wanted, who(), why)
    console.print(f"{_said(split)}; the gateways follow within half a second")


def _arm(text: str) -> Arm:
    release, equals, weight = text.partition("=")
    wrong = f"--arm {text!r} is not RELEASE=PERCENT; example: --arm 7=90 --arm 8=10"
    if not (equals and release.isdecimal()):
        raise ValueError(wrong)
    try:
        return Arm(int(release), float(weight))
    except ValueError:
        raise ValueError(wrong) from None


def _steps(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(step) for step in text.split(","))
    except ValueError:
        raise ValueError(f"--steps {text!r} are not percents with commas between; example: --steps 1,5,25,50") from None


def _said(split: Split) -> str:
    arms = ", ".join(f"release {arm.release} {arm.weight:g}%" for arm in split.arms) or "the live release alone"
    shadow = "" if split.shadow is None else f", shadow {split.shadow}"
    kind = "canary" if split.canary else "experiment"
    return f"{kind} {split.experiment} at {split.placement or 'every placement'}: {arms}{shadow}"


def _show_shadows(engine: Engine, experiments: set[str]) -> None:
    found = disagreements(engine, experiments)
    if not found:
        return
    columns = ("shadow", "beside", "compared", "failed", "dropped", "overlap", "rank correlation", "score", "ms")
    table = Table(*columns, title="Shadows")
    for (_, shadow, release), part in found.items():
        pages = max(part.compared, 1)
        table.add_row(
            str(shadow),
            str(release),
            f"{part.compared:,}",
            f"{part.failed:,}",
            f"{part.dropped:,}",
            f"{part.overlap / pages:.1%}",
            f"{part.correlation / max(part.correlated, 1):.3f}",
            f"±{part.score_difference / max(part.scored, 1):.4f}",
            f"{part.shadow_ms / pages:.1f} for {part.release_ms / pages:.1f}",
        )
    console.print(table)
