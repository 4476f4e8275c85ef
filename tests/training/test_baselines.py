"""Baselines on logs small enough to work out by hand, and the measure that they share with the model."""

from math import log, sqrt
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import sparse

from features.schema import EventType
from tests.training.shops import DAY_MS, MINUTE_MS, START_MS, Row, write_shop
from training.baselines import BASELINES, Setting
from training.baselines.baseline import FOREVER_DAYS
from training.baselines.baskets import fit_tifu_knn, shopper_vectors
from training.baselines.factors import als, fit_als
from training.baselines.history import add_own, holdings, weighted_history
from training.baselines.neighbours import fit_user_knn, fit_vsknn
from training.baselines.popularity import fit_personal_frequency, fit_popularity
from training.baselines.similarity import cosines, ease, fit_ease, fit_item_knn
from training.baselines.transitions import fit_transitions, transitions
from training.dataset import read_log
from training.evaluate import Protocol, Scorer, Stage, stage_by_time
from training.moments import Moments

END_MS = 1 << 60
PURCHASE = EventType.PURCHASE
VIEW = EventType.VIEW

PLAIN: Setting = {"event_decay": 1.0, "half_life_days": FOREVER_DAYS, "own": 0.0}
"""Every event of the shopper counts alike, its own items not at all."""


def order(shopper: str, day: int, *items: int) -> list[Row]:
    return [
        (f"u:{shopper}", f"i{item:03d}", PURCHASE, START_MS + day * DAY_MS, f"{shopper}{day}", None) for item in items
    ]


def views(shopper: str, day: int, *items: int) -> list[Row]:
    """One visit, an item a minute."""
    start_ms = START_MS + day * DAY_MS
    return [
        (f"u:{shopper}", f"i{item:03d}", VIEW, start_ms + at * MINUTE_MS, None, None) for at, item in enumerate(items)
    ]


def stage_of(folder: Path, rows: list[Row], split_day: int) -> Stage:
    """What is before the day is learned from, what comes after is asked."""
    events, moments = read_log(write_shop(folder, rows))
    split_ms = START_MS + split_day * DAY_MS
    return stage_by_time(events, moments, split_ms, END_MS, Protocol())


def asked(stage: Stage, shopper: str, day: int, minute: int = 0) -> Moments:
    return Moments(
        shoppers=np.array([stage.log.shopper_ids.index(f"u:{shopper}")]),
        times_ms=np.array([START_MS + day * DAY_MS + minute * MINUTE_MS]),
        targets=np.zeros(1, np.int32),
        offsets=np.array([0, 1]),
    )


def scores_at(scorer: Scorer, moments: Moments) -> dict[int, float]:
    """Scores other than 0 of a single moment, by item."""
    row: npt.NDArray[np.float32] = scorer(moments)[0]
    return {int(item): float(row[item]) for item in np.flatnonzero(row)}


BASKETS = order("a", 0, 1, 2) + order("a", 10, 1, 3) + order("b", 5, 4) + order("b", 9, 4) + order("a", 20, 1, 5)


def test_popularity_counts_the_moments_that_may_be_learned_from_halved_with_age(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, BASKETS, 15)
    moments = asked(stage, "a", 20)
    found = scores_at(fit_popularity(stage, {"half_life_days": 10.0}), moments)
    assert found == pytest.approx({1: 0.5 + 1.0, 2: 0.5, 3: 1.0, 4: 2**-0.5 + 2**-0.1}, rel=1e-5)
    always = scores_at(fit_popularity(stage, {"half_life_days": FOREVER_DAYS}), moments)
    assert always == pytest.approx({1: 2, 2: 1, 3: 1, 4: 2}, rel=1e-4)


def test_personal_frequency_counts_visits_that_bought_the_item_and_those_that_only_looked_less(tmp_path: Path) -> None:
    rows = BASKETS + views("a", 12, 6, 6, 3) + views("a", 10, 3)
    stage = stage_of(tmp_path, rows, 15)
    found = scores_at(fit_personal_frequency(stage, {"others": 0.1}), asked(stage, "a", 20))
    assert found == pytest.approx({1: 2.0, 2: 1.0, 3: 1.1, 6: 0.1})


def test_own_items_of_long_ago_are_raised_by_finite_scores() -> None:
    faded = np.float32(1e-42)  # what 0.5 to the power of many half-lives leaves
    events = sparse.csr_matrix(np.array([[2 * faded, faded, 0]], np.float32))
    scores = add_own(np.array([[1, 1, 3]], np.float32), events, 0.5)
    assert scores == pytest.approx(np.array([[2.5, 1.75, 3]]), rel=0.01)


def test_history_fades_with_time_and_with_every_event_behind(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, BASKETS, 15)
    fading = {"event_decay": 0.5, "half_life_days": 10.0}
    found = weighted_history(stage.log, asked(stage, "a", 20), fading).toarray()[0]
    assert found[[1, 2, 3]] == pytest.approx([2**-3 * 2**-2 + 2**-1 * 2**-1, 2**-2 * 2**-2, 2**-1])
    assert np.count_nonzero(found) == 3


LIKED = order("a", 0, 1, 2) + order("b", 1, 1) + order("c", 2, 1, 2, 3) + order("d", 3, 2) + order("d", 9, 3)


def test_item_knn_is_the_shrunk_cosine_of_what_may_be_learned_from(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, LIKED, 8)
    found = cosines(stage, False, 1.0).toarray()
    assert found[1, 2] == pytest.approx(2 / (sqrt(3 * 3) + 1))
    assert found[1, 3] == pytest.approx(1 / (sqrt(3 * 1) + 1))
    assert np.all(np.diag(found) == 0)
    scorer = fit_item_knn(stage, {**PLAIN, "by_visit": 0, "shrink": 1.0})
    assert scores_at(scorer, asked(stage, "d", 9)) == pytest.approx({1: 2 / 4, 3: 1 / (sqrt(3) + 1)})
    raised = fit_item_knn(stage, {**PLAIN, "by_visit": 0, "shrink": 1.0, "own": 0.3})
    assert scores_at(raised, asked(stage, "d", 9))[2] == pytest.approx(0.3 * 2 / 4)


def test_item_knn_keeps_the_best_neighbours_of_each_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.baselines.similarity.NEIGHBOURS", 1)
    stage = stage_of(tmp_path, LIKED, 8)
    found = cosines(stage, False, 0.0).toarray()
    assert found[:, 1].nonzero()[0].tolist() == [2]
    assert found[:, 3].nonzero()[0].tolist() == [1]  # 1 and 2 are equally near: the first


def test_visits_hold_less_together_than_shoppers(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, BASKETS, 15)
    assert cosines(stage, False, 0.0)[2, 3] == pytest.approx(1.0)
    assert cosines(stage, True, 0.0)[2, 3] == 0
    assert holdings(stage, True).held.sum(axis=1).ravel().tolist() == [[2, 1, 1, 2]]  # in order of time


def test_ease_is_the_ridge_regression_of_each_item_on_the_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    held = rng.random((30, 5)) < 0.4
    rows = [row for at, liked in enumerate(held) for row in order(f"s{at:02d}", at, *np.flatnonzero(liked).tolist())]
    stage = stage_of(tmp_path, rows, 99)
    found = ease(stage, False, 2.0).weights
    x_all = held.astype(float)
    for item in range(5):
        others = [other for other in range(5) if other != item]
        x = x_all[:, others]
        expected = np.linalg.solve(x.T @ x + 2.0 * np.eye(4), x.T @ x_all[:, item])
        assert found[others, item] == pytest.approx(expected, abs=1e-4)
        assert found[item, item] == 0


def test_ease_puts_items_that_it_leaves_out_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.baselines.similarity.MOST_ITEMS", 2)
    stage = stage_of(tmp_path, LIKED, 8)
    row = fit_ease(stage, {**PLAIN, "by_visit": 0, "ridge": 1.0})(asked(stage, "b", 9))[0]
    # Gram of items 1 and 2 with the ridge: [[4, 2], [2, 4]]; its inverse is [[4, -2], [-2, 4]] / 12.
    assert row[2] == pytest.approx(0.5)
    assert np.all(np.delete(row, 2) == 0)


def test_user_knn_takes_the_nearest_other_shoppers_by_cosine(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, LIKED, 8)
    setting = {**PLAIN, "neighbours": 2}
    # b had 1: cosine to a 1 / sqrt(2), to c 1 / sqrt(3), to itself 1, which does not count.
    found = scores_at(fit_user_knn(stage, setting), asked(stage, "b", 9))
    both = 1 / sqrt(2) + 1 / sqrt(3)
    assert found == pytest.approx({1: both, 2: both, 3: 1 / sqrt(3)})
    nearest = scores_at(fit_user_knn(stage, {**setting, "neighbours": 1}), asked(stage, "b", 9))
    assert nearest == pytest.approx({1: 1 / sqrt(2), 2: 1 / sqrt(2)})


def test_als_solves_the_shopper_anew_at_the_moment(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, LIKED, 8)
    setting = {**PLAIN, "factors": 2, "ridge": 0.5, "confidence": 4.0}
    found = fit_als(stage, setting)(asked(stage, "d", 10))[0]
    items = als(stage, 2, 0.5, 4.0).item_factors
    held = np.zeros(len(items))
    held[[2, 3]] = 1.0  # 3 was bought after what may be learned from, and is seen all the same
    confidences = np.where(held > 0, 4.0, 1.0)
    shopper = np.linalg.solve(items.T * confidences @ items + 0.5 * np.eye(2), items.T @ (confidences * held))
    assert np.abs(items[1:4]).min() > 0
    assert found == pytest.approx(items @ shopper, abs=1e-4)


STREAMS = views("a", 0, 1, 2, 3) + views("b", 1, 1, 3) + views("c", 9, 1, 4)


def test_transitions_fade_with_distance_and_stay_within_a_shopper_and_what_may_be_learned_from(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, STREAMS, 8)
    found = transitions(stage, 2, 0.5)
    assert {(int(row), int(column)): found[row, column] for row, column in zip(*found.nonzero(), strict=True)} == {
        (1, 2): 1.0,
        (2, 3): 1.0,
        (1, 3): 0.5 + 1.0,
    }
    assert transitions(stage, 1, 0.5)[1, 3] == 1.0


def test_the_last_events_vote_for_what_follows_them_by_place(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, STREAMS, 8)
    setting = {"window": 2, "distance_decay": 0.5, "column_power": 0.5, "position_decay": 0.6, "own": 0.0}
    # Rows sum to 2.5 (item 1) and 1 (item 2), columns to 1 (item 2) and 2.5 (item 3); a had 1, 2 and nothing else yet.
    found = scores_at(fit_transitions(stage, setting), asked(stage, "a", 0, minute=2))
    from_one = {2: 1 / sqrt(2.5), 3: 1.5 / 2.5}
    assert found == pytest.approx({2: 0.6 * from_one[2], 3: 0.6 * from_one[3] + 1 / sqrt(2.5)})


SESSIONS = views("a", 0, 1, 5) + views("b", 1, 2, 4) + views("c", 2, 1, 2, 3) + views("d", 9, 2, 1, 2)
VSKNN: Setting = {"sample": 10, "neighbours": 10, "idf": 0.0}


def test_vsknn_weighs_places_in_the_cosine_and_the_newest_shared_item_in_the_vote(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, SESSIONS, 8)
    # d had 2, 1, 2: item 2 weighs 3 / 3, item 1 weighs 2 / 3.
    near = {"a": 2 / 3 / sqrt(2), "b": 1 / sqrt(2), "c": 5 / 3 / sqrt(3)}
    found = scores_at(fit_vsknn(stage, VSKNN), asked(stage, "d", 9, minute=5))
    faded = 0.9 * near["a"]  # shares nothing newer than one place back
    assert found == pytest.approx(
        {1: faded + near["c"], 2: near["b"] + near["c"], 3: near["c"], 4: near["b"], 5: faded}, rel=1e-5
    )
    rare = scores_at(fit_vsknn(stage, {**VSKNN, "idf": 2.0}), asked(stage, "d", 9, minute=5))
    assert rare[4] == pytest.approx(near["b"] * (1 + 2 * log(3 / 1)), rel=1e-5)
    assert rare[1] == pytest.approx(found[1] * (1 + 2 * log(3 / 2)), rel=1e-5)


def test_vsknn_samples_the_newest_visits_then_the_nearest_and_never_the_shoppers_own(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, SESSIONS + views("d", 4, 2, 6), 8)
    moment = asked(stage, "d", 9, minute=1)  # had 2, 6 on day 4 and 2 now
    assert set(scores_at(fit_vsknn(stage, VSKNN), moment)) == {1, 2, 3, 4}
    assert set(scores_at(fit_vsknn(stage, {**VSKNN, "sample": 1}), moment)) == {1, 2, 3}
    assert set(scores_at(fit_vsknn(stage, {**VSKNN, "neighbours": 1}), moment)) == {2, 4}


REPEATED = (
    order("a", 0, 1)
    + order("a", 1, 2)
    + order("a", 2, 1, 3)
    + order("b", 3, 1, 4)
    + order("c", 3, 1)
    + order("d", 3, 5)
)
TIFU: Setting = {"groups": 2, "basket_decay": 0.9, "group_decay": 0.6, "share": 0.7, "neighbours": 1}


def test_tifu_fades_baskets_within_groups_and_groups(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, REPEATED, 8)
    found = shopper_vectors(stage, 2, 0.9, 0.6).toarray()
    # Three baskets: the newer two are one group, the oldest another.
    assert found[0, [1, 2, 3]] == pytest.approx([(1 / 2 + 0.6) / 2, 0.9 / 2 / 2, 1 / 2 / 2])
    assert found[1, [1, 4]] == pytest.approx([1, 1])


def test_tifu_mixes_the_shopper_with_the_nearest_others(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, REPEATED, 8)
    # From c = {1: 1} to b = {1: 1, 4: 1} it is 1; to a = {1: 0.55, 2: 0.225, 3: 0.25}, 0.561: a is nearer.
    found = scores_at(fit_tifu_knn(stage, TIFU), asked(stage, "c", 9))
    assert found == pytest.approx({1: 0.7 + 0.3 * 0.55, 2: 0.3 * 0.225, 3: 0.3 * 0.25}, rel=1e-5)
    both = scores_at(fit_tifu_knn(stage, {**TIFU, "neighbours": 5}), asked(stage, "c", 9))
    assert both[4] == pytest.approx(0.3 * 1 / 2)  # d shares nothing: two neighbours
    assert 5 not in both


MANY = [
    *views("a", 0, 1, 2, 3, 1),
    *views("b", 1, 2, 3, 4),
    *order("a", 2, 3, 4),
    *order("b", 3, 4),
    *order("c", 4, 1, 2, 5),
    *views("d", 9, 2, 3),
    *order("d", 10, 5),
]


@pytest.mark.parametrize("name", list(BASELINES))
def test_no_baseline_sees_what_is_not_learned_from_and_not_before_the_moment(tmp_path: Path, name: str) -> None:
    later = order("d", 11, 6) + order("a", 12, 6, 7) + views("c", 12, 7, 6, 2)
    other = order("d", 11, 8) + order("a", 12, 9) + views("c", 13, 8)
    for setting in (BASELINES[name].grid[0], BASELINES[name].grid[-1]):
        found = []
        for folder, rows in (("one", later), ("two", other)):
            stage = stage_of(tmp_path / folder, MANY + rows, 8)
            moments = asked(stage, "d", 10)
            scores = BASELINES[name].fit(stage, setting)(moments)
            assert (scores.dtype, scores.shape) == (np.float32, (1, stage.log.item_count))
            assert scores[0, 1:6].max() > 0
            found.append(scores)
        assert np.array_equal(*found)


@pytest.mark.parametrize("name", sorted(set(BASELINES) - {"TIFU-kNN"}))
def test_a_shopper_of_whom_nothing_is_known_gets_what_is_popular(tmp_path: Path, name: str) -> None:
    stage = stage_of(tmp_path, MANY + order("z", 9, 1), 8)
    scores = BASELINES[name].fit(stage, BASELINES[name].grid[0])(asked(stage, "z", 9))[0]
    assert scores.argmax() == 4  # bought twice, nothing else was


@pytest.mark.parametrize("name", list(BASELINES))
def test_a_baseline_with_nothing_to_learn_from_still_scores(tmp_path: Path, name: str) -> None:
    stage = stage_of(tmp_path, order("a", 9, 1) + order("a", 10, 1), 8)
    scores = BASELINES[name].fit(stage, BASELINES[name].grid[0])(asked(stage, "a", 10))
    assert np.isfinite(scores).all()
