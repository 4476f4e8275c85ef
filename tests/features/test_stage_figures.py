"""What a stage's recorded answers say of its two arms, over the same minutes, against figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Engine

from features.answers.answers import NewAnswer, Trial, answer_row, append_answers
from features.inputs.shopper import ShopperQuery
from features.schema import Tier
from features.traffic.canary import judge
from features.traffic.split import MAX_COMPARED, CanaryPlan, Split, canary_arms
from features.traffic.stage_figures import StageFigures
from tests.features.shops import NOBODY_ERASED

MINUTE_MS = 60_000
SINCE_MS = 29_000_000 * MINUTE_MS
LIVE, CANARY, STAGE = 1, 2, 5


def answer(
    arm: int, user: str, time_ms: int, *, failed: bool = False, ms: float = 5.0, stage: int = STAGE
) -> NewAnswer:
    return NewAnswer(
        attribution_token=f"{arm}-{user}-{time_ms}-{stage}",
        query=ShopperQuery(user_id=user, session_id="", now_ms=time_ms),
        placement="",
        options={},
        release=LIVE if failed else arm,
        tier=Tier.RECENT if failed else Tier.FULL,
        item_ids=[],
        stored=True,
        inputs=None,
        trial=Trial("e", stage, arm),
        model_failed=failed,
        latency_ms=ms,
    )


def record(engine: Engine, answers: list[NewAnswer]) -> None:
    with engine.begin() as connection:
        append_answers(connection, NOBODY_ERASED, [answer_row(answer) for answer in answers])


def figures_of(engine: Engine, since_ms: int = SINCE_MS) -> StageFigures:
    return StageFigures(engine, "e", STAGE, since_ms, control=LIVE, treatment=CANARY)


def test_figures_are_those_of_the_stage_from_its_beginning(engine: Engine) -> None:
    early, late = SINCE_MS + 10, SINCE_MS + 90_000
    record(
        engine,
        [
            answer(LIVE, "anna", early),
            answer(LIVE, "anna", early - 20),
            answer(LIVE, "dora", late, stage=STAGE - 1),
            *(answer(CANARY, "ben", early + number, ms=20.0 + number) for number in range(3)),
            answer(CANARY, "cleo", late, failed=True, ms=95.04),
        ],
    )
    figures = figures_of(engine, SINCE_MS)
    assert [part.answers for part in figures.figures()] == [0, 0] and figures.figures()[0].p99_ms == 0.0
    figures.advance(late)
    live, canary = figures.figures()
    assert (live.answers, live.failed, live.lower, live.p99_ms) == (1, 0, 0, 5.0)
    assert (canary.answers, canary.failed, canary.lower, canary.shoppers, canary.p99_ms) == (4, 1, 1, 2, 95.0)
    assert [canary.slower_than(ms) for ms in (19.9, 20.0, 21.5, 95.0)] == [4, 3, 2, 0]


def test_what_is_recorded_late_counts_and_nothing_counts_twice(engine: Engine) -> None:
    figures = figures_of(engine)
    record(engine, [answer(LIVE, "anna", SINCE_MS + 100)])
    figures.advance(SINCE_MS + 200)
    record(engine, [answer(LIVE, "ben", SINCE_MS + 150), answer(CANARY, "cleo", SINCE_MS + 160)])
    for now_ms in (SINCE_MS + 70_000, SINCE_MS + 130_000, SINCE_MS + 400_000):
        figures.advance(now_ms)
        assert [part.answers for part in figures.figures()] == [2, 1]


def test_an_outage_of_both_arms_is_no_fault_of_the_one_with_few_answers(engine: Engine) -> None:
    plan = CanaryPlan(release=CANARY)
    split = Split(
        placement="",
        experiment="e",
        arms=canary_arms(LIVE, plan, 0),
        canary=plan,
        shadow=None,
        stage=STAGE,
        step=0,
        stage_since_ms=SINCE_MS,
        since_ms=SINCE_MS,
        start_position=0,
    )
    figures = figures_of(engine)
    for minute in range(20):
        at_ms, down = SINCE_MS + minute * MINUTE_MS, minute == 2
        record(
            engine,
            [
                answer(arm, f"u{number}", at_ms + number, failed=down)
                for arm, count in ((LIVE, 800), (CANARY, 12))
                for number in range(count)
            ],
        )
        figures.advance(at_ms + MINUTE_MS - 1)
    live, canary = figures.figures()
    assert live.answers > MAX_COMPARED and canary.failed == 12
    assert judge(split, live, canary, [], at_ms).action == "wait"
    alone = replace(live, failed=0, lower=0)
    assert "errors" in judge(split, alone, canary, [], at_ms).why


def test_minutes_before_those_that_give_both_arms_enough_are_left_out(engine: Engine) -> None:
    figures = figures_of(engine)
    for minute in range(4):
        at_ms = SINCE_MS + minute * MINUTE_MS
        answers = [
            answer(arm, f"u{number}", at_ms + number, failed=minute == 0)
            for arm in (LIVE, CANARY)
            for number in range(MAX_COMPARED // 2)
        ]
        record(engine, answers)
        figures.advance(at_ms + MINUTE_MS - 1)
    assert [(part.answers, part.failed) for part in figures.figures()] == [(MAX_COMPARED, 0)] * 2
    taken_over = figures_of(engine)
    taken_over.advance(at_ms + MINUTE_MS - 1)
    assert [(part.answers, part.failed) for part in taken_over.figures()] == [(MAX_COMPARED, 0)] * 2
