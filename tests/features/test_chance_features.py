"""What chances are read from, worked out by hand, and the file that a release keeps them in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from features.inputs.outcome_features import Acts, outcome_features, relative_popularity, relative_scores
from features.inputs.probabilities import Logistic, Probabilities
from features.inputs.return_features import return_features
from features.releases.release import ReleaseError, read_probabilities
from features.schema import OUTCOME_FEATURES, RECENT_EVENTS, RETURN_FEATURES, EventType

VIEW, CART, PURCHASE = EventType.VIEW, EventType.CART, EventType.PURCHASE
HOUR_S, DAY_S = 3600.0, 86_400.0


def acts(*events: tuple[int, int, float], own: tuple[tuple[int, float, float], ...] = ()) -> Acts:
    """Of events (item, type, age in seconds) and own items (item, baskets, age in seconds)."""
    items, types, ages_s = (list(column) for column in zip(*events, strict=True)) if events else ([], [], [])
    own_items, counts, own_ages_s = (list(column) for column in zip(*own, strict=True)) if own else ([], [], [])
    return Acts(
        items=np.array(items, np.int32),
        types=np.array(types, np.int32),
        ages_s=np.array(ages_s, np.float64),
        own_items=np.array(own_items, np.int32),
        own_counts=np.array(counts, np.float64),
        own_ages_s=np.array(own_ages_s, np.float64),
        baskets=float(len(own)),
    )


def columns(items: list[int], did: Acts, relative: float = -2.0) -> dict[str, np.ndarray]:
    count = len(items)
    rows = outcome_features(np.array(items), np.full(count, relative, np.float32), np.ones(count), did)
    return dict(zip(OUTCOME_FEATURES, rows.T, strict=True))


def test_what_the_shopper_did_with_an_item_is_told_apart_from_what_they_did_with_others() -> None:
    did = acts((1, VIEW, 3 * HOUR_S), (2, VIEW, 120), (1, VIEW, 60), (2, CART, 30), own=((3, 4, 2 * DAY_S),))
    found = columns([1, 2, 3, 4], did)
    assert np.expm1(found["log_seen"]) == pytest.approx([2, 2, 0, 0])
    assert found["seen_in_session"].tolist() == [1, 1, 0, 0]
    assert found["in_cart"].tolist() == [0, 1, 0, 0]
    assert np.expm1(found["log_bought"]) == pytest.approx([0, 0, 4, 0])
    assert np.expm1(found["log_bought_days"]) == pytest.approx([0, 0, 2, 0], rel=1e-5)
    assert np.expm1(found["log_session_events"]) == pytest.approx([3] * 4)
    assert np.expm1(found["log_away_hours"]) == pytest.approx([30 / HOUR_S] * 4, rel=1e-4)


def test_a_score_bends_at_each_knot_and_counts_by_itself_in_a_visit() -> None:
    for age_s, in_session in ((60, -4.0), (2 * HOUR_S, 0.0)):
        found = columns([1], acts((2, VIEW, age_s)), relative=-4.0)
        above = [found[f"above_{knot}"][0] for knot in ("-9", "-7", "-5", "-3", "-1.5")]
        assert above == [5, 3, 1, 0, 0]
        assert (found["relative_score"][0], found["relative_score_in_session"][0]) == (-4, in_session)


def test_a_visit_counts_its_carts_and_purchases_and_no_other_visits() -> None:
    visit = [(1, VIEW, 10.0), (2, CART, 20.0), (3, CART, 30.0), (4, CART, 40.0), (2, PURCHASE, 50.0), (3, PURCHASE, 60)]
    found = columns([9], acts(*visit, (5, CART, 9 * HOUR_S), (5, PURCHASE, 9 * HOUR_S), own=((5, 2, 9 * HOUR_S),)))
    names = ("log_session_events", "log_session_carts", "log_session_purchases", "log_events", "log_baskets")
    assert [float(np.expm1(found[name][0])) for name in names] == pytest.approx([6, 3, 2, 8, 1])


def test_what_was_bought_is_in_the_cart_no_more() -> None:
    found = columns([1], acts((1, CART, 60), (1, PURCHASE, 30)))
    assert found["in_cart"].tolist() == [0] and found["bought_today"].tolist() == [1]


def test_an_item_that_nobody_knows_shares_no_history_with_another() -> None:
    found = columns([-1, -2], acts((-1, VIEW, 60), (-2, CART, 60), own=((-1, 1, 60),)))
    for name in ("log_seen", "in_cart", "log_bought", "bought_today"):
        assert found[name].tolist() == [0, 0], name


def test_a_shopper_who_did_nothing_has_features() -> None:
    assert all(np.isfinite(column).all() for column in columns([1, 2], acts()).values())


def test_relative_scores_of_the_best_are_log_shares() -> None:
    scores = np.array([1.0, 3.0, 2.0], np.float32)
    assert np.exp(relative_scores(scores, scores)).sum() == pytest.approx(1.0)
    assert relative_scores(scores + 100, scores + 100) == pytest.approx(relative_scores(scores, scores), abs=1e-4)
    assert relative_popularity(np.array([1.0, 3.0])).tolist() == [0.5, 1.5]
    assert relative_popularity(np.zeros(2)).tolist() == [0, 0]


def test_rhythm_of_visits() -> None:
    ages_s = np.array([20 * DAY_S, 20 * DAY_S - 60, 10 * DAY_S, 4 * DAY_S])
    types = np.array([VIEW, PURCHASE, VIEW, VIEW])
    found = dict(zip(RETURN_FEATURES, return_features(types, ages_s, np.array([50 * DAY_S]), 3.0), strict=True))
    plain = {name: np.expm1(value) for name, value in found.items()}
    assert plain["log_away_days"] == pytest.approx(4)
    assert plain["log_visits"] == pytest.approx(3)
    assert plain["log_mean_gap_days"] == pytest.approx(8)
    assert plain["log_gap_spread_days"] == pytest.approx(2)
    assert plain["log_away_by_gap"] == pytest.approx(0.5)
    assert plain["log_tenure_days"] == pytest.approx(50)
    events = [plain[f"log_events_{days}_days"] for days in (7, 28, 91)]
    assert events == pytest.approx([1, 4, 4])
    assert plain["log_purchases_28_days"] == pytest.approx(1) and plain["log_purchases_7_days"] == 0
    assert found["log_away_days_squared"] == pytest.approx(np.log1p(4) ** 2)
    assert found["log_away_days_by_log_visits"] == pytest.approx(np.log1p(4) * np.log1p(3))
    assert found["log_away_by_gap_squared"] == pytest.approx(np.log1p(0.5) ** 2)
    assert found["window_full"] == 0 and np.expm1(found["log_baskets"]) == pytest.approx(3)
    assert np.isfinite(return_features(np.zeros(0), np.zeros(0), np.zeros(0), 0.0)).all()


def test_a_shopper_of_one_long_visit_has_no_rhythm_and_a_full_window() -> None:
    ages_s = np.linspace(2 * DAY_S + 60, 2 * DAY_S, RECENT_EVENTS)
    features = return_features(np.full(RECENT_EVENTS, VIEW), ages_s, np.zeros(0), 0.0)
    found = dict(zip(RETURN_FEATURES, features, strict=True))
    assert found["window_full"] == 1
    assert np.expm1(found["log_visits"]) == pytest.approx(1)
    assert np.expm1(found["log_tenure_days"]) == pytest.approx(2, abs=0.01)
    assert [found[name] for name in ("log_mean_gap_days", "log_gap_spread_days", "log_away_by_gap")] == [0, 0, 0]


def logistic(weights: np.ndarray, bias: float, bound: float = 10.0) -> Logistic:
    return Logistic(weights, bias, np.full(weights.size, -bound), np.full(weights.size, bound))


def test_what_lies_beyond_all_that_was_seen_counts_as_the_nearest_that_was() -> None:
    model = logistic(np.array([2.0, -1.0]), 0.0, bound=1.0)
    inside, beyond = model.probability(np.array([[1.0, -1.0], [50.0, -1e9]]))
    assert inside == beyond == pytest.approx(1 / (1 + np.exp(-3.0)))


def test_probabilities_come_back_from_their_file(tmp_path: Path) -> None:
    kept = Probabilities(
        outcomes={PURCHASE: logistic(np.arange(len(OUTCOME_FEATURES), dtype=np.float64), -3.0)},
        comes_back=logistic(np.ones(len(RETURN_FEATURES)), 0.5),
    )
    path = tmp_path / "probabilities.json"
    path.write_text(json.dumps(kept.to_json()))
    found = read_probabilities(path)
    assert list(found.outcomes) == [PURCHASE] and found.comes_back is not None
    features = np.random.default_rng(0).normal(size=(5, len(OUTCOME_FEATURES)))
    chances = found.outcomes[PURCHASE].probability(features)
    assert chances == pytest.approx(kept.outcomes[PURCHASE].probability(features))
    assert chances == pytest.approx(1 / (1 + np.exp(3.0 - features @ np.arange(len(OUTCOME_FEATURES)))))


@pytest.mark.parametrize(
    "document",
    [
        "{}",
        "[]",
        "no JSON",
        '{"outcomes": {"purchase": {"weights": [1], "bias": 0}}, "return": null}',
        '{"outcomes": {"purchase": {"weights": [1], "lowest": [0], "highest": [1], "bias": 0}}, "return": null}',
        json.dumps({"outcomes": {}, "return": logistic(np.ones(len(RETURN_FEATURES)), np.nan).to_json()}),
        json.dumps({"outcomes": {}, "return": logistic(np.full(len(RETURN_FEATURES), np.inf), 0.0).to_json()}),
    ],
)
def test_a_file_of_another_version_is_refused(tmp_path: Path, document: str) -> None:
    path = tmp_path / "probabilities.json"
    path.write_text(document)
    with pytest.raises(ReleaseError, match="holds no probabilities"):
        read_probabilities(path)
