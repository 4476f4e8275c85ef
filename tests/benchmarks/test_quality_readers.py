"""Protocols cut where they should: what is learned, what is seen, what is asked."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.quality.folders import SplitBy, open_task
from benchmarks.quality.task import Task
from tests.benchmarks.made_up import (
    beauty_folder,
    days_before_test,
    movielens_folder,
    retail_folder,
    session_folder,
    write_lines,
)
from tests.training.shops import visits, write_shop
from training.dataset import DataError
from training.evaluate import Stage, seen_items
from training.moments import DAY_MS, MAX_MOMENTS

Questions = dict[str, list[tuple[list[str], list[str]]]]

TRAIN = [f"{10 + row} {11 + row} 7" for row in range(20)]
TEST = ["5 6 5\t7", "5 6\t5", "5\t6", "6 7\t7", "9 8\t5"]


def opened(folder: Path, cache: Path | None = None, split_by: SplitBy = SplitBy.LEAVE_ONE_OUT) -> Task:
    return open_task(str(folder), split_by, cache or folder / "cache")


def learned(stage: Stage) -> dict[str, list[str]]:
    """Items of each shopper that may be learned from, in order."""
    found: dict[str, list[str]] = {}
    for row, shopper in enumerate(stage.log.shopper_ids):
        at = np.arange(stage.log.starts[row], stage.log.starts[row + 1])
        found[shopper] = _ids(stage, stage.log.items[at[stage.learn[at]]])
    return {shopper: items for shopper, items in found.items() if items}


def questions(stage: Stage) -> Questions:
    """What each shopper is asked, in order of time: everything that is seen, and the targets."""
    moments = stage.test.moments
    row, item = seen_items(stage.log, moments)
    found: Questions = {}
    for at in range(len(moments)):
        shopper = stage.log.shopper_ids[moments.shoppers[at]]
        found.setdefault(shopper, []).append((_ids(stage, item[row == at]), _ids(stage, moments.targets_of(at))))
    return found


def _ids(stage: Stage, items: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str]:
    return stage.log.catalogue["item_id"].gather(items.astype(np.int64)).to_list()


def test_prefixes_of_one_session_are_one_shopper_that_is_asked_everywhere(tmp_path: Path) -> None:
    task = opened(session_folder(tmp_path / "shop", TRAIN, TEST))
    assert (task.name, task.headline, task.final.test.seen_masked) == ("shop", ("hr@20", "mrr@20"), False)
    assert questions(task.final) == {
        "s:20": [(["5"], ["6"]), (["5", "6"], ["5"]), (["5", "6", "5"], ["7"])],
        "s:21": [(["6", "7"], ["7"])],
        "s:22": [(["9", "8"], ["5"])],
    }
    assert task.final.test.repeated.sum() == 2  # 5 and 7
    assert task.final.test.allowed.all()


def test_the_last_tenth_of_sessions_validates_and_is_then_learned_from(tmp_path: Path) -> None:
    task = opened(session_folder(tmp_path, TRAIN, TEST))
    assert list(learned(task.tuning)) == [f"s:{row}" for row in range(18)]
    assert list(learned(task.final)) == [f"s:{row}" for row in range(20)]
    assert (len(task.tuning.moments), len(task.final.moments)) == (36, 40)
    assert questions(task.tuning) == {  # not for 29 and 30, which nothing to learn from holds
        "s:18": [(["28", "29"], ["7"])],
        "s:19": [(["29", "30"], ["7"])],
    }


def test_validation_asks_after_prefixes_no_shorter_than_the_test_s(tmp_path: Path) -> None:
    sessions = [f"{row % 5} {(row + 1) % 5} {(row + 2) % 5}" for row in range(20)]
    asked = [
        questions(opened(session_folder(tmp_path / str(at), sessions, test)).tuning)
        for at, test in enumerate((["1 2\t3", "1\t2"], ["1 2\t3"]))
    ]
    assert [len(before) for before, _ in asked[0]["s:19"]] == [1, 2]
    assert [len(before) for before, _ in asked[1]["s:19"]] == [2]


def test_sessions_begin_at_noon_a_second_apart_and_400_are_a_day(tmp_path: Path) -> None:
    task = opened(session_folder(tmp_path, ["1 2"] * 401, TEST))
    starts = task.log.times_ms[task.log.starts[:-1]]
    assert starts[0] % DAY_MS == DAY_MS // 2
    assert (starts[1] - starts[0], starts[400] - starts[0]) == (1000, DAY_MS)
    assert task.log.times_ms[1] - task.log.times_ms[0] == 60_000
    assert len(np.unique(task.log.visits)) == len(task.log.shopper_ids)


USERS = [[1, 2, 3, 4, 5], [2, 3, 6], [1, 4], list(range(1, 13))]


def test_leave_one_out_learns_from_all_but_two_and_sees_the_validation_event_at_the_test(tmp_path: Path) -> None:
    task = opened(movielens_folder(tmp_path, USERS))
    expected = {"u:1": ["1", "2", "3"], "u:2": ["2"], "u:3": ["1", "4"], "u:4": [str(item) for item in range(1, 11)]}
    assert learned(task.tuning) == learned(task.final) == expected
    assert questions(task.tuning)["u:1"] == [(["1", "2", "3"], ["4"])]
    assert questions(task.final)["u:1"] == [(["1", "2", "3", "4"], ["5"])]
    assert questions(task.final)["u:2"] == [(["2", "3"], ["6"])]
    assert set(questions(task.final)) == {"u:1", "u:2", "u:4"}, "of two events nothing can be held out"
    assert task.final.test.seen_masked and not task.final.test.repeated.any()


def test_every_learned_event_but_a_users_first_is_a_moment(tmp_path: Path) -> None:
    task = opened(movielens_folder(tmp_path, USERS))
    moments = task.final.moments
    assert np.bincount(moments.shoppers).tolist() == [2, 0, 1, 9]
    assert pl.Series(moments.times_ms).is_sorted()
    own = np.flatnonzero(moments.shoppers == 0)
    assert [moments.targets_of(row).tolist() for row in own] == [[1], [2]]
    assert (task.log.rows_before(moments.shoppers[own], moments.times_ms[own]) == [1, 2]).all()


def test_of_a_long_history_the_newest_moments_are_learned(tmp_path: Path) -> None:
    task = opened(movielens_folder(tmp_path, [list(range(1, MAX_MOMENTS + 11)), [1, 2, 3]]))
    targets = task.final.moments.targets
    assert len(targets) == MAX_MOMENTS
    assert targets.min() == 8, "of 410 events 408 are learned from, the last 400 of these are moments"


def test_without_times_there_is_an_event_a_day_and_all_end_on_the_same_day(tmp_path: Path) -> None:
    log = opened(movielens_folder(tmp_path, USERS)).log
    assert len(np.unique(log.times_ms[log.starts[1:] - 1])) == 1
    assert (np.diff(log.times_ms[-12:]) == DAY_MS).all()
    assert np.unique(log.visits, return_counts=True)[1].tolist() == [5, 3, 2, 10, 2]


REVIEWS = [[(3, 0), (1, 0), (2, 5), (4, 20)], [(1, 2), (2, 3), (3, 10), (5, 10)], [(5, 8), (6, 30), (1, 31)]]


def test_reviews_of_one_day_keep_their_order_and_are_a_visit(tmp_path: Path) -> None:
    task = opened(beauty_folder(tmp_path, REVIEWS))
    assert questions(task.final)["u:2"] == [(["1", "2", "3"], ["5"])]
    assert (np.diff(task.log.times_ms)[:1] == 1000).all()
    assert np.unique(task.log.visits, return_counts=True)[1].tolist() == [2, 1, 1, 1, 1, 2, 1, 1, 1]


def test_attributes_stand_in_the_catalogue(tmp_path: Path) -> None:
    catalogue = opened(beauty_folder(tmp_path, REVIEWS)).log.catalogue
    assert catalogue["item_id"].to_list() == ["1", "2", "3", "4", "5", "6"]
    assert catalogue["attributes"][1].to_list() == ["attribute=2", "attribute=100"]


def test_a_split_by_time_learns_nothing_from_behind_it(tmp_path: Path) -> None:
    task = opened(beauty_folder(tmp_path, REVIEWS), split_by=SplitBy.TIME)
    assert task.name == "amazon-beauty-time"
    # 11 events: the quantiles 0.8 and 0.9 are those of days 20 and 30
    assert learned(task.tuning) == {"u:1": ["3", "1", "2"], "u:2": ["1", "2", "3", "5"], "u:3": ["5"]}
    assert questions(task.tuning) == {"u:1": [(["3", "1", "2"], ["4"])]}
    assert learned(task.final) == learned(task.tuning) | {"u:1": ["3", "1", "2", "4"]}
    assert questions(task.final) == {"u:3": [(["5"], ["6"]), (["5", "6"], ["1"])]}


OFTEN = [(f"{1000 + at}", 90 + at, days_before_test(100 - at), ["A", "P"]) for at in range(5)]
INVOICES = [
    *OFTEN,
    ("2000", 1, days_before_test(60), ["A", "C"]),
    ("2001", 1, days_before_test(20), ["P"]),
    ("2002", 1, days_before_test(10), ["A"]),
    ("2003", 1, days_before_test(-2), ["A", "C", "P"]),
    ("2004", 1, days_before_test(-3), ["P"]),
    ("2005", 2, days_before_test(-1), ["A"]),
    ("2006", 90, days_before_test(0), ["P"]),
]


def row(number: str, code: str, quantity: int = 1, price: float = 2.5, customer: int | None = 1) -> tuple[object, ...]:
    return (number, code, "Thing", quantity, datetime(2011, 6, 1), price, customer, "France")


BAD_ROWS = [
    row("C3000", "A", -1),
    row("3001", "A", 0),
    row("3002", "A", price=0.0),
    row("3003", "POST"),
    row("3004", "B"),
    row("3005", "A", customer=None),
]


def test_the_first_basket_of_a_known_customer_is_asked(tmp_path: Path) -> None:
    task = opened(retail_folder(tmp_path / "data", INVOICES), tmp_path / "cache")
    assert task.mean_of_shoppers
    assert questions(task.final) == {
        "u:90": [(["A", "P"], ["P"])],
        "u:1": [(["A", "C", "P", "A"], ["A", "P"])],
    }
    assert questions(task.tuning) == {"u:1": [(["A", "C"], ["P"])]}
    assert task.final.test.repeated.tolist() == [True, True, True]


def test_items_with_fewer_than_five_events_are_not_ranked(tmp_path: Path) -> None:
    test = opened(retail_folder(tmp_path / "data", INVOICES), tmp_path / "cache").final.test
    assert test.allowed.tolist() == [True, False, True]


def test_cancellations_services_and_rows_without_a_price_or_customer_are_left_out(tmp_path: Path) -> None:
    clean = opened(retail_folder(tmp_path / "a", INVOICES), tmp_path / "cache")
    task = opened(retail_folder(tmp_path / "b", INVOICES, BAD_ROWS), tmp_path / "cache")
    assert learned(task.final) == learned(clean.final)
    assert task.log.catalogue["item_id"].to_list() == ["A", "C", "P"]
    assert task.log.catalogue["price"].to_list() == [2.5, 2.5, 2.5]


def test_a_shop_is_split_at_midnights(tmp_path: Path) -> None:
    task = opened(write_shop(tmp_path / "corner" / "offline", visits()))
    assert task.name == "corner"
    for stage in (task.tuning, task.final):
        first = stage.test.moments.times_ms.min()
        assert 0 < stage.log.times_ms[stage.learn].max() < first and stage.moments.times_ms.max() < first
    assert task.tuning.test.moments.times_ms.max() < task.final.test.moments.times_ms.min()


def test_a_folder_without_any_known_file_says_which_are_known(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ml-1m\.txt\.gz.*give the folder of a data set"):
        opened(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        opened(tmp_path / "nowhere")


def test_a_missing_companion_file_is_named(tmp_path: Path) -> None:
    (beauty_folder(tmp_path, REVIEWS) / "item2attributes.json").unlink()
    with pytest.raises(DataError, match="item2attributes.json is missing"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("file", "lines", "reason"),
    [
        ("ml-1m.txt.gz", ["1 2", "1 two"], "line 2: a user and an item"),
        ("ml-1m.txt.gz", ["1 2", "3"], "a user and an item"),
        ("train_sessions.txt.gz", ["1 2", "1 x"], "line 2: item numbers"),
        ("test_prefix_target.txt.gz", ["1 2\t3", "1 2"], "line 2: a prefix, a tab"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, file: str, lines: list[str], reason: str) -> None:
    if "ml-1m" not in file:
        session_folder(tmp_path, TRAIN, TEST)
    write_lines(tmp_path / file, lines)
    with pytest.raises(DataError, match=f"{file} is damaged .*{reason}"):
        opened(tmp_path)


@pytest.mark.parametrize("file", ["ml-1m.txt.gz", "interactions.parquet", "online_retail.parquet"])
def test_a_file_of_another_kind_is_one_clear_line(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text("<html>not found</html>")
    with pytest.raises(DataError, match=f"{file} is damaged") as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)


def test_only_amazon_beauty_is_split_by_time(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--protocol time"):
        opened(movielens_folder(tmp_path, USERS), split_by=SplitBy.TIME)
