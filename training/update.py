"""The live release goes on with what happened since: what `python -m training update` runs.

Builds the features, takes the live release's weights over into today's catalogue and vocabularies, learns the moments
since the release, holds the last day back to measure on, and publishes by the ordinary gate. The chances of outcomes
are carried over: a day holds too few to calibrate on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from features.database.engine import open_database
from features.inputs.probabilities import Probabilities
from features.locks import LockTaken, locked
from features.offline.build import build
from features.releases.release_table import ReleaseTable
from features.schema import FUSION_MODEL
from features.settings import Settings
from training.dataset import DataError, read_log
from training.evaluate import Protocol
from training.fit import POPULARITY_DAYS, go_on, take_note
from training.moments import DAY_MS, END_OF_TIME_MS, Moments, popularity_scores
from training.pipeline import Split, measure_model, real_samples, report, stages
from training.publish import check_repository, publish
from training.returning import fit_return
from training.trained import TrainedModel, release_items
from training.warm_start import Released, read_released, warm_model


def update(
    settings: Settings, *, test_from_ms: int | None, why: str, note: Callable[[str], None]
) -> tuple[int, TrainedModel]:
    """Publishes the live release as it is after what happened since.

    Args:
        test_from_ms: nothing is learned from here on; by default about the last day on which something was bought.
        why: kept with the change in the release table.
        note: told of each step.

    Returns:
        The new release's number, and what it was made of, which also lies in `home/update`.

    Raises:
        DataError: no release is live, it cannot be taken over, there is nothing new, or another update is under way.
        ReleaseError: the live release is damaged, the model repository cannot be written, or the gate refuses the new
            one.
    """
    check_repository(settings.model_repository)
    engine = open_database(settings.log_url)
    table = ReleaseTable(engine)
    try:
        with locked(settings, "update", engine=engine, wait=False):
            released = _live(settings, table)
            note(f"building features; release {released.number} has learned what was known by {_day(released)}")
            build(settings)
            trained = update_model(settings.offline, settings.home / "update", released, test_from_ms=test_from_ms)
            if table.live() != released.number:
                raise DataError(f"release {released.number} is no longer live; run `python -m training update` again")
            return publish(settings, trained, why=why, note=note), trained
    except LockTaken:
        raise DataError("another `python -m training update` is under way on this shop; wait until it ends") from None
    finally:
        engine.dispose()


def update_model(offline: Path, folder: Path, released: Released, *, test_from_ms: int | None) -> TrainedModel:
    """Goes on with a release on the offline files, measures, and saves.

    Args:
        folder: gets the trained model, figures and predictions.
        test_from_ms: as `update` takes it.

    Raises:
        DataError: the release cannot be taken over, or there is nothing new to learn or to measure on.
    """
    log, moments = read_log(offline, released.codes, grow=True)
    split = Split(released.learned_to_ms, last_day(moments) if test_from_ms is None else test_from_ms)
    _check_new(moments, split, released)
    folder.mkdir(parents=True, exist_ok=True)
    tuning, final = stages(log, moments, split, Protocol())
    model, content = warm_model(released, log)
    take_note(model, tuning)
    before = copy.deepcopy(model).eval()
    go_on(model, final, split.validation_from_ms, released.config, folder=folder)
    measured = measure_model(model, tuning, final, folder, beside={f"release {released.number}": before})
    trained = TrainedModel(
        model=model,
        config=released.config,
        items=release_items(log.catalogue, content, popularity_scores(moments, log.item_count, POPULARITY_DAYS)),
        content=content,
        codes=log.vocabularies,
        samples=real_samples(model, log, moments),
        probabilities=Probabilities(
            outcomes=released.probabilities.outcomes, comes_back=fit_return(log, split.test_from_ms)
        ),
        report=report(split.describe(log) | {"targets": moments.of, "warm_start": released.number}, measured, []),
    )
    trained.save(folder)
    return trained


def last_day(moments: Moments) -> int:
    """The midnight from which on about a day of moments, half a day to one and a half, is left; 0 of none.

    That of the log may have none: a small shop sells nothing on a Sunday.
    """
    end_ms = int(moments.times_ms.max(initial=DAY_MS // 2))
    return (end_ms - DAY_MS // 2) // DAY_MS * DAY_MS


def _live(settings: Settings, table: ReleaseTable) -> Released:
    live = table.live()
    if live is None:
        raise DataError(
            "no release is live, so there is none to go on with; publish one first: python -m training train, then "
            "python -m training publish"
        )
    return read_released(settings.model_repository / FUSION_MODEL / str(live))


def _check_new(moments: Moments, split: Split, released: Released) -> None:
    if not len(moments.known_by(split.test_from_ms).unknown_by(split.validation_from_ms)):
        raise DataError(
            f"release {released.number} has learned what was known by {_day(released)}, and of what was bought since "
            f"nothing was known by {_iso(split.test_from_ms)}, from when on nothing is learned: there is nothing new"
        )
    if not len(moments.between(split.test_from_ms, END_OF_TIME_MS)):
        raise DataError(
            f"nothing was bought from {_iso(split.test_from_ms)} on, so there is nothing to measure on; give an "
            "earlier --test-from"
        )


def _day(released: Released) -> str:
    return _iso(released.learned_to_ms)


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, tz=timezone.utc).isoformat(sep=" ", timespec="minutes")
