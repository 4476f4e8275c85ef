"""Whether the online rows are those that a batch build makes from the log, for every shopper that the log knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from rich.progress import Progress
from sqlalchemy import Engine, select

from features import schema, store
from features.database.engine import open_database
from features.database.models import SignIn
from features.log.event_log import EventLog
from features.offline.build import write_events, write_shopper_rows
from features.online.rows import profile_rows
from features.schema import shopper_key
from features.settings import Settings
from features.shop.users import Users

VIEWS = (schema.RECENT_VIEW, schema.PURCHASES_VIEW, schema.PROFILE_VIEW)
_SHOPPERS_A_READ = 500

Row = dict[str, Any] | None


def differences(settings: Settings) -> Iterator[str]:
    """A line for each row that is not as a build would write it; nothing may be written meanwhile."""
    engine = open_database(settings.log_url)
    try:
        with TemporaryDirectory() as folder, store.opened(settings) as feast:
            shoppers = _shoppers(engine)
            for view, rows in built(engine, Path(folder)).items():
                found = online(feast, view, shoppers)
                for shopper in shoppers:
                    if found[shopper] != rows.get(shopper):
                        yield f"{view} of {shopper}: online {found[shopper]}, built {rows.get(shopper)}"
    finally:
        engine.dispose()


def built(engine: Engine, folder: Path) -> dict[str, dict[str, Row]]:
    """What a batch build makes from the log, by view and shopper."""
    with Progress(disable=True) as progress:
        write_events(EventLog(engine), folder, progress)
        write_shopper_rows(folder, progress)
    frames = {view: pl.read_parquet(folder / f"{view}.parquet") for view in (schema.RECENT_VIEW, schema.PURCHASES_VIEW)}
    frames[schema.PROFILE_VIEW] = profile_rows(Users(engine).frame())
    return {
        view: {row.pop("shopper"): _content(row) for row in frame.drop("event_timestamp").to_dicts()}
        for view, frame in frames.items()
    }


def online(feast: store.FeatureStore, view: str, shoppers: list[str]) -> dict[str, Row]:
    """The online rows of a view by shopper."""
    names = [feature.name for feature in feast.get_feature_view(view).features]
    rows: dict[str, Row] = {}
    for start in range(0, len(shoppers), _SHOPPERS_A_READ):
        part = shoppers[start : start + _SHOPPERS_A_READ]
        answer = feast.get_online_features(
            features=[f"{view}:{name}" for name in names], entity_rows=[{schema.SHOPPER: shopper} for shopper in part]
        ).to_dict()
        for number, shopper in enumerate(part):
            rows[shopper] = _content({name: answer[name][number] for name in names})
    return rows


def _content(row: dict[str, Any]) -> Row:
    """None for a row without anything in it, which the online store cannot tell from none."""
    return row if any(value is not None for value in row.values()) else None


def _shoppers(engine: Engine) -> list[str]:
    """Everyone with an event or a profile, and the sessions that signed in."""
    acted = {shopper for frame in EventLog(engine).scan() for shopper in frame["shopper"].unique()}
    with engine.connect() as connection:
        sessions = connection.scalars(select(SignIn.session_id)).all()
    known = Users(engine).frame()["user_id"].to_list()
    return sorted(acted | {shopper_key(None, key) for key in sessions} | {shopper_key(key, None) for key in known})
