"""Which release answers a shopper, and which is asked beside, by the splits and by what is held ready."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine

from features.answers.answers import Trial
from features.inputs.shopper import ShopperQuery
from features.traffic.split import Arm, Split
from server.following import Counters
from server.releases.traffic import Traffic

LIVE, NEW, OTHER, UNLOADED = 1, 2, 3, 4
HELD = {number: SimpleNamespace(number=number) for number in (LIVE, NEW, OTHER)}
STAGE = 7


def split(placement: str, *, all_to: int | None = None, shadow: int | None = None) -> Split:
    """An experiment of the placement's name, whose second arm is everybody's."""
    arms = () if all_to is None else (Arm(LIVE, 0), Arm(all_to, 100))
    times = dict.fromkeys(("step", "stage_since_ms", "since_ms", "start_position"), 0)
    name = placement or "everywhere"
    return Split(placement=placement, experiment=name, arms=arms, canary=None, shadow=shadow, stage=STAGE, **times)


def chosen(splits: Sequence[Split], live: int | None, placement: str) -> tuple[int | None, Trial | None, int | None]:
    """The release that answers, the shopper's trial, and the shadow."""
    engine = create_engine("sqlite://")
    releases: Any = SimpleNamespace(current=HELD[live] if live else None, loaded=HELD)
    with ThreadPoolExecutor(1) as threads:
        traffic = Traffic(engine, releases, Counters(engine, threads), threads)
    traffic.take(list(splits))
    choice = traffic.choose(ShopperQuery(user_id="anna", session_id="", now_ms=0), placement)
    numbers = [None if release is None else release.number for release in (choice.release, choice.shadow)]
    assert choice.experiment or choice.shadow is None
    return numbers[0], choice.trial, numbers[1]


HOME, EVERYWHERE = split("home", all_to=NEW), split("", all_to=OTHER)


@pytest.mark.parametrize(
    ("splits", "placement", "expected"),
    [
        ([], "home", (LIVE, None, None)),
        ([HOME], "home", (NEW, Trial("home", STAGE, NEW), None)),
        ([HOME], "basket", (LIVE, None, None)),
        ([HOME, EVERYWHERE], "basket", (OTHER, Trial("everywhere", STAGE, OTHER), None)),
        ([EVERYWHERE, HOME], "home", (NEW, Trial("home", STAGE, NEW), None)),
        ([split("home", shadow=OTHER)], "home", (LIVE, None, OTHER)),
        ([split("home", all_to=NEW, shadow=OTHER)], "home", (NEW, Trial("home", STAGE, NEW), OTHER)),
        ([split("home", all_to=NEW, shadow=UNLOADED)], "home", (NEW, Trial("home", STAGE, NEW), None)),
        ([split("home", all_to=UNLOADED, shadow=OTHER)], "home", (LIVE, None, OTHER)),
    ],
)
def test_a_placements_own_split_goes_before_the_one_for_all_and_needs_every_arm_held_ready(
    splits: Sequence[Split], placement: str, expected: tuple[int, Trial | None, int | None]
) -> None:
    assert chosen(splits, LIVE, placement) == expected


def test_where_no_release_is_in_service_none_of_a_split_answers() -> None:
    assert chosen([split("home", all_to=NEW, shadow=OTHER)], None, "home") == (None, None, None)
