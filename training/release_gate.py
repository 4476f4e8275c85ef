"""Whether a candidate is good enough to be placed: beside the live release and the simple baselines, on one window.

The window begins where neither the candidate nor the live release has learned, and ends where the offline files do.
All answer the same moments from the same items. `training.gate` has looked at the candidate's files and modules before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import polars as pl
from scipy.special import stdtrit

from features.database.engine import open_database
from features.locks import locked
from features.online.materialize import active_shoppers
from features.releases.release import ReleaseError
from features.releases.release_table import ReleaseTable
from features.schema import FUSION_MODEL
from features.settings import Settings
from features.store import count_interests, opened
from training.baselines import BASELINES, fit_tuned
from training.dataset import Log
from training.evaluate import Protocol, Stage, keep_targets, rank, target_hits
from training.gate import GateError
from training.metrics import Floats, by_shopper, ndcg_at
from training.moments import DAY_MS, Ints
from training.pipeline import Split, stages
from training.served_release import ServedRelease

WORSE_SHARE = 0.05
"""A candidate may be worse by this share of the other's NDCG@10, and by more where it may be chance."""
SURELY = 0.95
"""One-sided, by Student's t of the paired difference by shopper."""
LEAST_SHOPPERS = 5
"""Of fewer the differences say nothing about chance."""
COVERAGE_SHARE = 0.5
"""Different items in the answers, as a share of the live release's."""
SIMPLE_BASELINES = ("popularity", "personal frequency")
MOST_MOMENTS = 2_000
ACTIVE_DAYS = 30
MOST_ACTIVE = 5_000
"""Active shoppers whose vectors are looked for, drawn at random."""
LEAST_COVERED = 0.99
SHOWN = 10
"""Places that are measured."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What one method answered to the window: items in the candidate's numbers, and NDCG@10 of each shopper."""

    name: str
    ranked: Ints
    ndcg: Floats

    @property
    def coverage(self) -> int:
        """How many different items it showed."""
        shown = np.unique(self.ranked[:, :SHOWN])
        return int((shown >= 0).sum())


def check_quality(settings: Settings, candidate: Path, note: Callable[[str], None]) -> None:
    """Measures a candidate beside the live release and the simple baselines.

    Args:
        candidate: its folder, as `training.publish.write_candidate` makes it.
        note: told of what was measured.

    Raises:
        GateError: it is worse, or covers less, than it may.
        DataError: the offline files are missing.
    """
    new, live = ServedRelease(candidate), _live(settings, note)
    # the lock under which these files are replaced: shoppers are numbered by them, for all releases alike
    with locked(settings, "erasure", shared=True):
        log, moments = new.read_log(settings.offline)
        live_log = live.read_log(settings.offline)[0] if live is not None else log
    windows = [_window(release) for release in (new, live) if release is not None]
    split = Split(max(window.validation_from_ms for window in windows), max(window.test_from_ms for window in windows))
    tuning, final = stages(log, moments, split, Protocol(sample=MOST_MOMENTS))
    final = _among(final, new.items.is_in(live.items.to_list()) if live is not None else new.items.is_not_null())
    asked = final.test.moments
    if not len(asked):
        note(f"no moments since {_day(split.test_from_ms)} to measure release {new.files.manifest.release} on")
        return
    allowed = new.items.filter(pl.Series(final.test.allowed))
    places = np.flatnonzero(final.test.allowed).astype(np.int32)

    def served(name: str, release: ServedRelease, read: Log) -> Answers:
        found = release.rank(read, asked, allowed)
        return _answers(name, final, np.where(found >= 0, places[found], -1))

    mine = served("the candidate", new, log)
    others = [] if live is None else [served(f"release {live.files.manifest.release}, which is live,", live, live_log)]
    for name in SIMPLE_BASELINES:
        scorer, _ = fit_tuned(BASELINES[name], tuning, final)
        others.append(_answers(name, final, rank(scorer, final)))
    figures = ", ".join(f"{it.name} {it.ndcg.mean():.4f}" for it in (mine, *others))
    note(f"NDCG@10 on {len(asked):,} moments since {_day(split.test_from_ms)}: {figures}")
    if len(mine.ndcg) < LEAST_SHOPPERS:
        note(f"too few shoppers to refuse a candidate for its NDCG@10: {len(mine.ndcg)} of at least {LEAST_SHOPPERS}")
    else:
        for other in others:
            _compare(mine, other)
    if live is not None and mine.coverage < COVERAGE_SHARE * others[0].coverage:
        raise GateError(
            f"the candidate's answers show {mine.coverage} different items, those of {others[0].name} "
            f"{others[0].coverage}; at least {COVERAGE_SHARE:.0%} of them is asked"
        )


def check_vectors(settings: Settings, release: int) -> None:
    """Looks whether active shoppers have a long-term vector online.

    Raises:
        GateError: too many have none.
    """
    engine = open_database(settings.log_url)
    shoppers = active_shoppers(engine, release, ACTIVE_DAYS * DAY_MS)
    engine.dispose()
    if len(shoppers) > MOST_ACTIVE:
        chosen = np.random.default_rng(0).choice(len(shoppers), MOST_ACTIVE, replace=False)
        shoppers = [shoppers[at] for at in chosen]
    with opened(settings) as store:
        covered = count_interests(store, release, shoppers)
    if covered < LEAST_COVERED * len(shoppers):
        raise GateError(
            f"{covered} of {len(shoppers)} shoppers who were active in the last {ACTIVE_DAYS} days of the log have a "
            f"long-term vector of release {release}; at least {LEAST_COVERED:.0%} must"
        )


def _live(settings: Settings, note: Callable[[str], None]) -> ServedRelease | None:
    engine = open_database(settings.log_url)
    number = ReleaseTable(engine).live()
    engine.dispose()
    if number is None:
        return None
    try:
        return ServedRelease(settings.model_repository / FUSION_MODEL / str(number))
    except ReleaseError as error:  # no gateway serves it either, and the candidate may be what mends that
        note(f"release {number}, which is live, cannot be measured: {error}")
        return None


def _window(release: ServedRelease) -> Split:
    """Where the release was tuned and tested, and had not learned."""
    window = release.files.manifest.data_window
    try:
        return Split(*(_time_ms(window[name]) for name in ("validation_from", "test_from")))
    except KeyError as error:
        raise GateError(
            f"release {release.files.manifest.release} does not say from when on it has learned nothing ({error} is "
            "missing in its data_window); train it with `python -m training train`"
        ) from None


def _among(stage: Stage, known: pl.Series) -> Stage:
    """The stage with known items alone, ranked and asked for; known: bool (N,)."""
    allowed = stage.test.allowed & known.to_numpy()
    kept = allowed[stage.test.moments.targets]
    moments = keep_targets(stage.test.moments, kept)
    return replace(
        stage, test=replace(stage.test, moments=moments, allowed=allowed, repeated=stage.test.repeated[kept])
    )


def _answers(name: str, stage: Stage, ranked: Ints) -> Answers:
    moments = stage.test.moments
    hits, sizes = target_hits(moments, ranked, None)
    return Answers(name, ranked, by_shopper(ndcg_at(hits, sizes, SHOWN), moments.shoppers))


def _compare(mine: Answers, other: Answers) -> None:
    """Refuses a candidate that is worse by more than it may be, and not by chance: a paired t-test by shopper."""
    difference = mine.ndcg - other.ndcg
    count = len(difference)
    worse = -float(difference.mean())
    chance = float(stdtrit(count - 1, SURELY) * difference.std(ddof=1) / np.sqrt(count))
    if worse > WORSE_SHARE * other.ndcg.mean() and worse > chance:
        raise GateError(
            f"the candidate's NDCG@10 is {mine.ndcg.mean():.4f}, that of {other.name} {other.ndcg.mean():.4f} on the "
            f"same {count} shoppers (worse by {worse:.4f} ± {chance:.4f}); at most {WORSE_SHARE:.0%} "
            "less is taken. Train on more events or for longer, or say why it is to serve all the same: "
            'publish --although-worse "REASON"'
        )


def _time_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _day(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, tz=timezone.utc):%Y-%m-%d}"
