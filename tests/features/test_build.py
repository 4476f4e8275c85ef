"""Features built from the log: equal to what the log says shopper by shopper, and never ahead of their moment."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sqlalchemy import text

from features import schema, store
from features.log.event_log import EventLog, NewEvent
from features.offline.build import OFFLINE_EVENTS, build, whole_shoppers
from features.offline.history import PurchaseHistory
from features.offline.item_statistics import (
    POPULARITY_HALF_LIFE_DAYS,
    POPULARITY_WEIGHTS,
    SEGMENT_EVENTS,
    SEGMENT_ITEMS,
    item_statistics,
    segments,
    write_table,
)
from features.online import current_rows
from features.online.rows import newest_events, purchase_rows, purchases, recent_rows
from features.schema import EventType
from features.settings import Settings
from features.shop.users import UserProfile, Users
from features.stream.stream_positions import stream_position
from tests.features.shops import HOUR_MS, START_MS, fill, now_ms, online, random_events

DAY_MS = 24 * HOUR_MS
PART = segments("", "", START_MS)[-1].removeprefix("time:")


def test_files_hold_the_log_and_rows_equal_the_logs_own_answers(settings: Settings) -> None:
    engine = fill(settings, random_events(300, seed=1))
    build(settings)
    log = EventLog(engine)
    events = pl.read_parquet(settings.offline / "events.parquet")
    scanned = pl.concat(log.scan()).with_columns(known_time_ms="arrival_time_ms").select(OFFLINE_EVENTS)
    assert events.equals(scanned.sort("shopper", "event_time_ms", "position"))
    shoppers = events["shopper"].unique().to_list()
    recent = recent_rows(log.recent_of(shoppers, schema.RECENT_EVENTS))
    bought = purchase_rows(log.purchases_of(shoppers))
    assert pl.read_parquet(settings.offline / f"{schema.RECENT_VIEW}.parquet").equals(recent)
    assert pl.read_parquet(settings.offline / f"{schema.PURCHASES_VIEW}.parquet").equals(bought)
    for view, rows in ((schema.RECENT_VIEW, recent), (schema.PURCHASES_VIEW, bought)):
        found = online(settings, view, shoppers)
        features = rows.drop("shopper", "event_timestamp").to_dicts()
        assert {key: row for key, row in found.items() if row} == dict(zip(rows["shopper"], features, strict=True))


def test_building_again_changes_nothing(settings: Settings) -> None:
    fill(settings, random_events(100, seed=2))
    build(settings)
    before = {path.name: path.read_bytes() for path in settings.offline.iterdir() if path.is_file()}
    build(settings)
    after = {path.name: path.read_bytes() for path in settings.offline.iterdir() if path.is_file()}
    assert {name: pl.read_parquet(content).rows() for name, content in before.items()} == {
        name: pl.read_parquet(content).rows() for name, content in after.items()
    }


def test_an_empty_shop_is_built_without_complaint(settings: Settings) -> None:
    build(settings)
    for path in settings.offline.glob("*.parquet"):
        assert pl.read_parquet(path).is_empty(), path
    assert online(settings, schema.RECENT_VIEW, ["u:1"]) == {"u:1": None}


def test_profiles_are_online_after_a_build(settings: Settings) -> None:
    engine = fill(settings, [])
    Users(engine).upsert([UserProfile(user_id="1", age=31, country="GB")])
    build(settings)
    assert online(settings, schema.PROFILE_VIEW, ["u:1"])["u:1"] == {"age": 31, "gender": None, "country": "GB"}


def test_a_build_leaves_rows_with_newer_events_to_the_stream(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = fill(settings, random_events(60, seed=3))
    written = current_rows.write_online

    def meanwhile(*arguments: object) -> None:
        late = NewEvent(
            event_id="late", event_type=1, event_time_ms=now_ms(), user_id="0", session_id=None, item_id="item-1"
        )
        EventLog(engine).append([late], now_ms())
        written(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(current_rows, "write_online", meanwhile)
    build(settings)
    assert online(settings, schema.RECENT_VIEW, ["u:0", "s:1"])["u:0"] is None
    assert online(settings, schema.RECENT_VIEW, ["s:1"])["s:1"] is not None
    assert stream_position(engine) == 60


def test_historical_features_never_see_a_row_before_its_newest_event(settings: Settings) -> None:
    fill(settings, random_events(80, seed=4))
    build(settings)
    rows = pl.read_parquet(settings.offline / f"{schema.RECENT_VIEW}.parquet").row(0, named=True)
    newest: datetime = rows["event_timestamp"]
    asked = pd.DataFrame({"shopper": [rows["shopper"]] * 2, "event_timestamp": [newest - timedelta(seconds=1), newest]})
    with store.opened(settings) as feast:
        got = feast.get_historical_features(asked, [f"{schema.RECENT_VIEW}:item_ids"]).to_df()
    seen = {moment: list(items) for moment, items in zip(got["event_timestamp"], got["item_ids"], strict=True)}
    assert seen == {newest: rows["item_ids"]}


@pytest.mark.parametrize("rows", [1, 2, 7, 1000])
def test_chunks_are_whole_shoppers_in_order(tmp_path: Path, rows: int) -> None:
    shoppers = [shopper for shopper, count in enumerate([3, 1, 1, 20, 2, 5]) for _ in range(count)]
    frame = pl.DataFrame({"shopper": [f"u:{number}" for number in shoppers], "row": range(len(shoppers))})
    frame.write_parquet(tmp_path / "events.parquet", row_group_size=4)
    chunks = list(whole_shoppers(tmp_path / "events.parquet", rows))
    assert pl.concat(chunks).equals(frame)
    seen = [set(chunk["shopper"].to_list()) for chunk in chunks]
    assert sum(len(part) for part in seen) == 6


def test_purchases_before_a_moment_equal_the_purchases_of_the_log_cut_there() -> None:
    rng = np.random.default_rng(5)
    log = _frame(random_events(250, seed=5))
    shoppers = np.array([*log["shopper"].to_list(), "u:nobody"])[rng.integers(0, log.height + 1, 60)]
    moments = START_MS + rng.integers(0, 130, 60) * HOUR_MS
    got = PurchaseHistory.of(log).at(shoppers, moments)
    parts = []
    for example, (shopper, moment) in enumerate(zip(shoppers, moments, strict=True)):
        seen = log.filter((pl.col("shopper") == shopper) & (pl.col("event_time_ms") < moment))
        parts.append(purchases(seen).with_columns(example=pl.lit(example, pl.Int64)))
    assert got.equals(pl.concat(parts).select(got.columns))


def test_purchases_before_a_moment_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    log = _frame(random_events(200, seed=6))
    shoppers, moments = log["shopper"].to_numpy(), log["event_time_ms"].to_numpy()
    whole = PurchaseHistory.of(log).at(shoppers, moments)
    monkeypatch.setattr("features.offline.history.CHUNK_PAIRS", 3)
    assert PurchaseHistory.of(log).at(shoppers, moments).equals(whole)


def test_nobody_bought_anything() -> None:
    log = _frame([])
    assert PurchaseHistory.of(log).at(np.array(["u:1"]), np.array([START_MS])).is_empty()


def test_newest_events_leave_impressions_and_searches_out() -> None:
    log = _frame(random_events(120, seed=7)).sort("shopper", "event_time_ms", "position")
    kept = newest_events(log, 3)
    assert kept.group_by("shopper").len()["len"].max() == 3
    assert not set(kept["event_type"]) & {int(EventType.IMPRESSION), int(EventType.SEARCH)}


def test_popularity_halves_with_age_and_segments_follow_shopper_and_category() -> None:
    day = int(POPULARITY_HALF_LIFE_DAYS * DAY_MS)
    buy, view = EventType.PURCHASE, EventType.VIEW
    log = _events(
        [("u:1", "lamp", buy, START_MS + day), ("u:2", "sofa", buy, START_MS), ("s:9", "lamp", view, START_MS)]
    )
    catalogue = pl.DataFrame({"item_id": ["lamp", "sofa"], "category_path": [["Light"], ["Seats", "Soft"]]})
    users = pl.DataFrame({"shopper": ["u:1", "u:2"], "country": ["GB", "DE"], "device": ["phone", None]})
    got = item_statistics(log.lazy(), catalogue, users)
    seen_before = POPULARITY_WEIGHTS[view] / 2
    expected = {
        ("", "lamp"): (1, 1, 1 + seen_before),
        ("", "sofa"): (0, 1, 0.5),
        ("country:GB", "lamp"): (0, 1, 1.0),
        ("country:DE", "sofa"): (0, 1, 0.5),
        ("device:phone", "lamp"): (0, 1, 1.0),
        (f"time:{PART}", "lamp"): (1, 1, 1 + seen_before),
        (f"time:{PART}", "sofa"): (0, 1, 0.5),
        ("category:Light", "lamp"): (1, 1, 1 + seen_before),
        ("category:Seats", "sofa"): (0, 1, 0.5),
    }
    figures = {
        (row["segment"], row["item_id"]): (row["views"], row["purchases"], pytest.approx(row["popularity"]))
        for row in got.to_dicts()
    }
    assert figures == expected


def test_popularity_at_a_moment_leaves_later_events_out() -> None:
    log = _frame(random_events(200, seed=8))
    catalogue = pl.DataFrame(schema={"item_id": pl.String, "category_path": pl.List(pl.String)})
    users = pl.DataFrame(schema={"shopper": pl.String, "country": pl.String, "device": pl.String})
    moment = START_MS + 40 * HOUR_MS
    cut = log.filter(pl.col("event_time_ms") <= moment)
    assert item_statistics(log.lazy(), catalogue, users, moment).equals(
        item_statistics(cut.lazy(), catalogue, users, moment)
    )


def test_a_segment_keeps_its_most_popular_items() -> None:
    count = SEGMENT_ITEMS + 20
    log = _events([("u:1", f"item-{n}", EventType.PURCHASE, START_MS + n) for n in range(count)])
    catalogue = pl.DataFrame({"item_id": [f"item-{n}" for n in range(count)], "category_path": [["All"]] * count})
    users = pl.DataFrame({"shopper": ["u:1"], "country": ["GB"], "device": [None]}, schema_overrides={"device": str})
    got = item_statistics(log.lazy(), catalogue, users)
    sizes = dict(got.group_by("segment").len().rows())
    names = ("country:GB", f"time:{PART}", f"country:GB|time:{PART}", "category:All")
    assert sizes == {"": count} | dict.fromkeys(names, SEGMENT_ITEMS)
    assert "item-0" not in got.filter(pl.col("segment") == "country:GB")["item_id"].to_list()


def test_combinations_are_counted_where_there_is_enough_to_count() -> None:
    part_ms = DAY_MS // 4
    rows = [("u:1", f"i{n % 3}", EventType.VIEW, START_MS + n % 2 * part_ms) for n in range(2 * SEGMENT_EVENTS)]
    rows += [("u:2", "i0", EventType.VIEW, START_MS + n) for n in range(SEGMENT_EVENTS - 1)]
    catalogue = pl.DataFrame({"item_id": ["i0", "i1", "i2"], "category_path": [["All"]] * 3})
    users = pl.DataFrame({"shopper": ["u:1", "u:2"], "country": ["GB", "DE"], "device": ["phone", "phone"]})
    got = item_statistics(_events(rows).lazy(), catalogue, users)
    named = set(segments("GB", "phone", START_MS)) | set(segments("GB", "phone", START_MS + part_ms))
    assert named <= set(got["segment"])
    assert "country:DE" in set(got["segment"]) and "country:DE|device:phone" not in set(got["segment"])
    both = got.filter(pl.col("segment") == "country:GB|device:phone")
    assert both["views"].sum() == 2 * SEGMENT_EVENTS
    later = got.filter(pl.col("segment") == segments("GB", "phone", START_MS + part_ms)[-1])
    assert later["views"].sum() == SEGMENT_EVENTS


def test_a_country_that_reads_like_a_segment_of_two_values_is_a_segment_of_its_own(settings: Settings) -> None:
    rows = [(user, "i0", EventType.VIEW, START_MS + n) for user in ("u:1", "u:2") for n in range(SEGMENT_EVENTS)]
    catalogue = pl.DataFrame({"item_id": ["i0"], "category_path": [["All"]]})
    odd = ["GB|device:phone", "GB%7Cdevice:phone"]
    shoppers, countries = ["u:1", "u:2", "u:3"], ["GB", *odd]
    rows.append(("u:3", "i0", EventType.VIEW, START_MS))
    users = pl.DataFrame({"shopper": shoppers, "country": countries, "device": ["phone", None, None]})
    got = item_statistics(_events(rows).lazy(), catalogue, users)
    views = dict(got.select("segment", "views").rows())
    names = [segments("GB", "phone", 0)[1], *(segments(country, "", 0)[0] for country in odd)]
    assert [views[name] for name in names] == [SEGMENT_EVENTS, SEGMENT_EVENTS, 1]
    engine = fill(settings, [])
    write_table(engine, got)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM item_statistics")).scalar_one() == got.height


def test_the_table_of_statistics_is_replaced(settings: Settings) -> None:
    engine = fill(settings, random_events(100, seed=9))
    figures = text("SELECT count(*), sum(purchases) FROM item_statistics WHERE segment = ''")
    counted = []
    for _ in range(2):
        build(settings)
        with engine.connect() as connection:
            counted.append(tuple(connection.execute(figures).one()))
    assert counted[0] == counted[1]
    assert counted[0][0] == 9


@pytest.mark.timeout(120)
def test_a_build_works_on_postgresql_and_redis(
    new_settings: Callable[..., Settings], postgres_url: str, redis_url: str
) -> None:
    settings = new_settings(database_url=postgres_url, online_store="redis", redis_url=redis_url)
    fill(settings, random_events(100, seed=10)).dispose()
    build(settings)
    assert any(online(settings, schema.PURCHASES_VIEW, [f"u:{n}" for n in (0, 2, 4, 6)]).values())


def _events(rows: list[tuple[str, str, EventType, int]]) -> pl.DataFrame:
    columns = {"shopper": pl.String, "item_id": pl.String, "event_type": pl.Int32, "event_time_ms": pl.Int64}
    return pl.DataFrame([(s, i, int(k), t) for s, i, k, t in rows], schema=columns, orient="row")


def _frame(events: list[NewEvent]) -> pl.DataFrame:
    columns = {
        "shopper": pl.String,
        "event_id": pl.String,
        "item_id": pl.String,
        "event_type": pl.Int32,
        "event_time_ms": pl.Int64,
        "order_id": pl.String,
        "position": pl.Int64,
    }
    rows = [
        (
            schema.shopper_key(event.user_id, event.session_id),
            event.event_id,
            event.item_id,
            event.event_type,
            event.event_time_ms,
            event.order_id,
            position,
        )
        for position, event in enumerate(events, 1)
    ]
    return pl.DataFrame(rows, schema=columns, orient="row")
