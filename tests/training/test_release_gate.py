"""Which candidates the gate lets serve: beside the live release and the simple baselines, on one window."""

from __future__ import annotations

import re
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from features.database.engine import open_database
from features.releases.release_table import ReleaseTable
from features.schema import EventType, interest_view
from features.settings import Settings
from features.store import open_store
from tests.training.publishing import forgetful, published
from tests.training.shops import ITEMS, catalogue, visits, write_shop
from training.evaluate import Protocol
from training.gate import GateError
from training.pipeline import train
from training.publish import publish, write_candidate
from training.release_gate import Answers, _compare, check_quality
from training.served_release import ServedRelease
from training.trained import TrainedModel


def test_a_candidate_that_is_worse_than_the_live_release_is_not_placed(shop: Settings, trained: TrainedModel) -> None:
    published(shop, trained)
    with pytest.raises(GateError, match=r"NDCG@10 is 0\.\d+, that of release 1, which is live, 0\.\d+ on the same"):
        published(shop, forgetful(trained))
    table = ReleaseTable(open_database(shop.log_url))
    assert [row.state for row in table.all()] == ["live", "failed"]
    assert table.changes(2)[-1].why.startswith("the candidate's NDCG@10 is")
    assert sorted(path.name for path in shop.model_repository.glob("*/*") if path.is_dir()) == ["1", "1"]
    assert interest_view(2) not in {view.name for view in open_store(shop).list_feature_views()}


def test_a_first_release_must_hold_its_own_against_the_simple_baselines(shop: Settings, trained: TrainedModel) -> None:
    with pytest.raises(GateError, match='that of personal frequency .* publish --although-worse "REASON"'):
        published(shop, forgetful(trained))
    assert ReleaseTable(open_database(shop.log_url)).live() is None


def test_a_person_may_let_a_worse_one_serve_and_the_table_says_so(shop: Settings, trained: TrainedModel) -> None:
    number = publish(shop, forgetful(trained), why="test", note=lambda _: None, although_worse="a trial of ours")
    table = ReleaseTable(open_database(shop.log_url))
    assert table.live() == number
    assert table.changes(number)[-1].why == "test (not measured: a trial of ours)"


def test_answers_that_cover_less_of_the_catalogue_are_refused(
    shop: Settings, trained: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(shop, trained)
    monkeypatch.setattr("training.release_gate.COVERAGE_SHARE", 1.01)  # the same answers again are too few now
    with pytest.raises(GateError, match=r"show (\d+) different items, those of release 1, which is live, \1; at least"):
        published(shop, trained)


def test_what_one_shopper_took_is_no_reason_to_refuse(shop: Settings, trained: TrainedModel) -> None:
    events = pl.read_parquet(shop.offline / "events.parquet")
    test_from = datetime.fromisoformat(trained.report["data_window"]["test_from"])
    before = pl.col("event_time_ms") < test_from.timestamp() * 1000
    one = events.filter(~before, pl.col("event_type") == int(EventType.PURCHASE))["shopper"][0]
    events.filter(before | (pl.col("shopper") == one)).write_parquet(shop.offline / "events.parquet")
    notes: list[str] = []
    publish(shop, forgetful(trained), why="test", note=notes.append)
    assert any(note.startswith("too few shoppers to refuse") for note in notes)


@pytest.mark.parametrize(
    ("mine", "refused"), [([0.1, 0.1, 0.2, 0.1, 0.1], True), ([0.1, 0.1, 1.0, 0.1, 0.4], False)], ids=str
)
def test_a_difference_of_few_shoppers_must_be_beyond_what_their_spread_explains(
    mine: list[float], refused: bool
) -> None:
    """The second is worse by 0.26 ± 0.3729, with 4 degrees of freedom; the normal quantile would say ± 0.2574."""
    nothing = np.zeros((5, 0), np.int32)
    candidate, live = Answers("it", nothing, np.array(mine)), Answers("live", nothing, np.full(5, 0.6))
    with pytest.raises(GateError, match="on the same 5 shoppers") if refused else nullcontext():
        _compare(candidate, live)


def test_a_live_release_of_other_items_is_asked_about_those_that_both_know(
    shop: Settings, trained: TrainedModel, offline: Path, tmp_path: Path
) -> None:
    fewer = write_shop(tmp_path / "fewer", visits(), catalogue(ITEMS - 8))
    live = train(fewer, tmp_path / "run", trained.config, Protocol(), test_from_ms=None, resume=False)
    published(shop, live)
    notes: list[str] = []
    assert publish(shop, trained, why="test", note=notes.append) == 2
    measured = next(note for note in notes if note.startswith("NDCG@10 on"))
    figures = dict(re.findall(r"(the candidate|release 1, which is live,) (0\.\d+)", measured))
    assert all(0.3 < float(figure) < 1 for figure in figures.values()) and len(figures) == 2


def test_features_that_are_built_while_the_gate_measures_change_no_figure(
    shop: Settings, trained: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(shop, trained)
    write_candidate(trained, 2, shop.home / "candidate")
    calm: list[str] = []
    check_quality(shop, shop.home / "candidate" / "fusion", calm.append)
    rank = ServedRelease.rank

    def rank_after_a_build(*given: Any) -> Any:
        path = shop.offline / "events.parquet"
        events = pl.read_parquet(path)
        first = events[:1].with_columns(shopper=pl.lit("u:!"), event_id=pl.lit("one shopper more"))
        pl.concat([first, events]).write_parquet(path)
        return rank(*given)

    monkeypatch.setattr(ServedRelease, "rank", rank_after_a_build)
    meanwhile: list[str] = []
    check_quality(shop, shop.home / "candidate" / "fusion", meanwhile.append)
    assert meanwhile == calm and "release 1, which is live" in calm[0]
