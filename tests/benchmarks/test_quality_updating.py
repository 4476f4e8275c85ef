"""The last days of a log are replayed: one model at first, then each method's own, kept for the next run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.quality.updating import DAILY, NEVER, WEEKLY, Shop, replay, tables, write
from tests.training.shops import visits, write_shop
from training.config import Config, FitConfig, ModelConfig
from training.dataset import DataError, read_log

CONFIG = Config(
    model=ModelConfig(dim=16, transitions=True), fit=FitConfig(epochs=1, final_epochs=0, learning_rate=1e-2)
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("updating")
    log, moments = read_log(write_shop(folder / "offline", visits()))
    return Shop(log, moments, CONFIG, folder / "models")


def test_methods_part_when_their_models_do_and_a_second_run_finds_the_models(shop: Shop, tmp_path: Path) -> None:
    days = replay(shop, 9)
    assert [day.name for day in days][::8] == ["2026-02-21", "2026-03-01"]
    first, second, eighth = days[0], days[1], days[7]
    assert first.mean(NEVER) == first.mean(WEEKLY) == first.mean(DAILY)
    assert second.mean(NEVER) == second.mean(WEEKLY)
    assert eighth.seconds[WEEKLY] > 0.0 == eighth.seconds[NEVER]
    assert [day.seconds[DAILY] > 0 for day in days] == [True] * 9
    assert any(day.mean(DAILY) != day.mean(NEVER) for day in days[1:])
    assert any(day.mean(WEEKLY) != day.mean(NEVER) for day in days[7:])

    again = replay(Shop(shop.log, shop.moments, CONFIG, shop.folder), 9)
    assert [day.seconds for day in again] == [day.seconds for day in days]
    assert [day.mean(DAILY) for day in again] == [day.mean(DAILY) for day in days]

    write(tmp_path, "shop", days)
    assert (tmp_path / "updating.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((tmp_path / "updating.json").read_text())["days"]) == 9
    by_day, gains, seconds = tables("shop", days)
    assert (len(by_day.rows), len(gains.rows), len(seconds.rows)) == (9, 3, 3)
    assert (tmp_path / "updating.md").read_text().startswith("## shop: ndcg@10 by day")


def test_a_span_that_leaves_too_little_to_learn_from_is_refused(shop: Shop) -> None:
    with pytest.raises(DataError, match="--days 50: less than half of the purchases are before"):
        replay(shop, 50)
