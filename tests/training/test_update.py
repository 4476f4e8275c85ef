"""Going on with a release: weights stay with their items and codes, what is new is learned, and only then published."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch

from features.database.engine import open_database
from features.locks import locked
from features.log.event_log import EventLog
from features.releases.release import file_sha256
from features.releases.release_table import ReleaseTable, Standing
from features.schema import EventType
from features.settings import Settings
from features.shop.catalogue import Catalogue, CatalogueItem
from tests.training.shops import DAY_MS, MINUTE_MS, START_MS, Row, as_written, catalogue, visits, write_shop
from training.dataset import DataError, read_log
from training.publish import publish, write_candidate
from training.trained import TrainedModel
from training.update import update, update_model
from training.warm_start import Released, read_released, warm_model

NEW = "i000-new"
"""Stands between items that the release knows."""
NEW_FROM = 60
DAYS = 8


def newer_visits() -> list[Row]:
    """What happened behind `visits()`: everybody, and somebody new, buys the new item again and again."""
    rows: list[Row] = []
    for day in range(DAYS):
        for shopper in range(day % 2, 62, 2):
            time_ms = START_MS + (NEW_FROM + day) * DAY_MS + (shopper * 11 + 60) * MINUTE_MS
            session = f"new{day}-{shopper}"
            rows.append((f"u:{shopper}", f"i{shopper % 40:03d}", EventType.VIEW, time_ms, None, session))
            rows.append(
                (f"u:{shopper}", NEW, EventType.PURCHASE, time_ms + MINUTE_MS, f"new-o{day}-{shopper}", session)
            )
    return rows


def newer_catalogue() -> pl.DataFrame:
    """Four new items of a new brand beside those of `catalogue()`."""
    new = catalogue(4).with_columns(
        item_id=pl.Series([NEW, "i005-new", "i900", "i901"]), brand=pl.lit("Brand new"), price=pl.lit(500.0)
    )
    return pl.concat([catalogue(), new]).sort("item_id")


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Offline files of the small shop eight days later."""
    folder = write_shop(tmp_path_factory.mktemp("newer"), visits() + newer_visits(), newer_catalogue())
    users = pl.read_parquet(folder / "users.parquet")
    users.with_columns(country=pl.Series(["GB", "FR"] * (users.height // 2))).write_parquet(folder / "users.parquet")
    return folder


@pytest.fixture
def candidate(trained: TrainedModel, tmp_path: Path) -> Path:
    """The files of release 1."""
    write_candidate(trained, 1, tmp_path)
    return tmp_path / "fusion"


@pytest.fixture
def released(candidate: Path) -> Released:
    return read_released(candidate)


def change_manifest(folder: Path, **changes: object) -> None:
    path = folder / "release.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_weights_stay_with_their_items_and_codes_and_what_is_new_starts_from_content(
    released: Released, trained: TrainedModel, newer: Path
) -> None:
    log, _ = read_log(newer, released.codes, grow=True)
    model, vocabulary = warm_model(released, log)
    before, after = trained.model.tower, model.tower
    old, new = trained.items["item_id"].to_list(), log.catalogue["item_id"].to_list()
    rows = torch.tensor([new.index(item) for item in old])
    assert torch.equal(after.ids.weight[rows], before.ids.weight)
    assert torch.equal(after.id_bias.weight[rows], before.id_bias.weight)
    added = torch.tensor([new.index(item) for item in sorted(set(new) - set(old))])
    assert len(added) == 4
    assert not after.ids.weight[added].any()
    size = trained.content.size
    assert {token: vocabulary.codes[token] for token in trained.content.codes} == trained.content.codes
    assert vocabulary.codes["brand:brand new"] >= size
    assert torch.equal(after.codes.weight[:size], before.codes.weight)
    assert not after.codes.weight[size:].any()
    assert (log.vocabularies.country["gb"], log.vocabularies.country["fr"]) == (1, 2)
    assert torch.equal(model.codes[2].weight[:2], trained.model.codes[2].weight)
    assert torch.equal(model.long.state_dict()["norm.weight"], trained.model.long.state_dict()["norm.weight"])


def test_a_release_from_before_a_part_that_it_does_not_use_is_gone_on_with(
    released: Released, trained: TrainedModel, newer: Path
) -> None:
    assert not released.config.model.covisitation
    state = {name: weight for name, weight in released.state.items() if not name.startswith("covisitation.")}
    assert len(state) < len(released.state)
    log, _ = read_log(newer, released.codes, grow=True)
    model, _ = warm_model(replace(released, state=state), log)
    assert torch.equal(model.fusion.long_out.weight, trained.model.fusion.long_out.weight)
    used = replace(released.config, model=replace(released.config.model, covisitation=True))
    with pytest.raises(DataError, match=r"weights and configuration differ in covisitation\."):
        warm_model(replace(released, state=state, config=used), log)


def test_an_update_learns_what_is_new_and_holds_the_last_day_back(
    released: Released, newer: Path, tmp_path: Path
) -> None:
    updated = update_model(newer, tmp_path / "run", released, test_from_ms=None)
    window = updated.report["data_window"]
    assert window["warm_start"] == 1
    assert window["test_from"].startswith("2026-03-09T00:00")
    assert int(pl.Series([window["validation_from"]]).str.to_datetime().dt.epoch("ms")[0]) == released.learned_to_ms
    figures = updated.report["variants"]
    assert figures["fusion"]["ndcg@10"] > figures["release 1"]["ndcg@10"] + 0.1
    assert bool(updated.model.tower.seen[updated.items["item_id"].to_list().index(NEW)])
    assert updated.probabilities.outcomes == released.probabilities.outcomes


def test_days_on_which_nothing_is_bought_do_not_hold_an_update_up(
    released: Released, newer: Path, tmp_path: Path
) -> None:
    quiet = ("u:1", "i001", EventType.VIEW, START_MS + (NEW_FROM + DAYS + 2) * DAY_MS, None, "quiet")
    folder = write_shop(tmp_path / "offline", [*visits(), *newer_visits(), quiet], newer_catalogue())
    updated = update_model(folder, tmp_path / "run", released, test_from_ms=None)
    assert updated.report["data_window"]["test_from"].startswith("2026-03-09T00:00")


def test_what_was_known_too_late_for_one_update_is_learned_by_the_next(
    released: Released, trained: TrainedModel, tmp_path: Path
) -> None:
    folder = write_shop(tmp_path / "offline", [*visits(), *newer_visits()], newer_catalogue())
    events = pl.read_parquet(folder / "events.parquet")
    night_ms = (pl.col("event_time_ms") // DAY_MS + 1) * DAY_MS + 180 * MINUTE_MS  # sent once a day, at three
    late = events.with_columns(arrival_time_ms=night_ms, known_time_ms=night_ms)
    second = START_MS + (NEW_FROM + 1) * DAY_MS
    late.filter(pl.col("event_time_ms") < second + DAY_MS).write_parquet(folder / "events.parquet")
    on_the_first = replace(released, learned_to_ms=second - DAY_MS)
    updated = update_model(folder, tmp_path / "run", on_the_first, test_from_ms=None)
    window = updated.report["data_window"]
    assert window["test_from"].startswith("2026-03-03T00:00") and window["validation_from"].startswith("2026-03-02")
    assert not torch.equal(updated.model.fusion.long_out.weight, trained.model.fusion.long_out.weight)
    with pytest.raises(DataError, match="there is nothing new"):
        update_model(folder, tmp_path / "run", replace(released, learned_to_ms=second), test_from_ms=second)


def test_nothing_new_is_said(released: Released, offline: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="release 1 has learned what was known by .* there is nothing new"):
        update_model(offline, tmp_path / "run", released, test_from_ms=released.learned_to_ms)


def test_nothing_to_measure_on_is_said(released: Released, newer: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give an earlier --test-from"):
        update_model(newer, tmp_path / "run", released, test_from_ms=START_MS + 90 * DAY_MS)


def test_a_release_without_its_weights_is_named(candidate: Path) -> None:
    manifest = json.loads((candidate / "release.json").read_text())
    change_manifest(candidate, files={name: sha for name, sha in manifest["files"].items() if name != "weights.pt"})
    with pytest.raises(DataError, match=r"weights\.pt: the release was published without its weights"):
        read_released(candidate)


def test_a_configuration_of_another_version_is_named(candidate: Path, trained: TrainedModel) -> None:
    config = trained.config.to_dict()
    config["model"]["wings"] = 2
    change_manifest(candidate, config=config)
    with pytest.raises(DataError, match=r"not of this version: model\.wings: unknown"):
        read_released(candidate)


def test_weights_of_another_configuration_are_named(candidate: Path, trained: TrainedModel, newer: Path) -> None:
    stored = torch.load(candidate / "weights.pt", weights_only=True)
    stored["state"]["fusion.long_out.weight"] = torch.zeros(8, 8)
    torch.save(stored, candidate / "weights.pt")
    files = json.loads((candidate / "release.json").read_text())["files"]
    change_manifest(candidate, files=files | {"weights.pt": file_sha256(candidate / "weights.pt")})
    released = read_released(candidate)
    with pytest.raises(DataError, match=r"fusion\.long_out\.weight is \(8, 8\), its configuration asks for \(16, 16\)"):
        warm_model(released, read_log(newer, released.codes, grow=True)[0])


def test_an_update_publishes_and_the_next_one_finds_nothing_new(settings: Settings, trained: TrainedModel) -> None:
    engine = open_database(settings.log_url)
    events = as_written(visits() + newer_visits())
    EventLog(engine).append(events, START_MS)
    items = newer_catalogue().select("item_id", "title", "category_path", "brand", "price").to_dicts()
    Catalogue(engine).upsert([CatalogueItem(**item) for item in items])
    engine.dispose()
    notes: list[str] = []
    with pytest.raises(DataError, match="no release is live"):
        update(settings, test_from_ms=None, why="test", note=notes.append)
    assert publish(settings, trained, why="test", note=notes.append, although_worse="nothing is built yet") == 1
    with locked(settings, "update"), pytest.raises(DataError, match="another `python -m training update` is under way"):
        update(settings, test_from_ms=None, why="test", note=notes.append)

    number, updated = update(settings, test_from_ms=None, why="nightly", note=notes.append)
    table = ReleaseTable(open_database(settings.log_url))
    assert (number, table.standing()) == (2, Standing(live=2, previous=1))
    assert table.changes(2)[-1].why == "nightly"
    assert table.of(2).manifest["data_window"]["warm_start"] == 1
    assert any("release 1 has learned what was known by" in note for note in notes)
    assert NEW in updated.items["item_id"].to_list()
    with pytest.raises(DataError, match="there is nothing new"):
        update(settings, test_from_ms=None, why="test", note=notes.append)
    assert table.live() == 2
